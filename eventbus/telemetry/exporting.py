"""How the spans of our own provider come to an exporter: by the bundle, and whole."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import cast
from weakref import ref

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from typing_extensions import override

from eventbus.telemetry.bundles import Bundle, Bundles, in_parts
from eventbus.telemetry.quickspan import whole

__all__ = ("BundlingProcessor", "WholeSpans")

_BUNDLES = 4
"""Bundles that wait at most, so that as many spans wait as the SDK lets."""
_SUCCESS = SpanExportResult.SUCCESS


class BundlingProcessor(SpanProcessor):
    """The SDK's batch processor, which is told of each bundle once, and not of each span.

    It exports as that does: at most 512 spans at a time, and what there is each 5 seconds. Where
    2048 wait, the oldest are dropped, a bundle of them.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        # Two bundles wake its thread: one that is full, and the next, which has begun.
        self._batches = BatchSpanProcessor(
            WholeSpans(exporter), max_queue_size=_BUNDLES, max_export_batch_size=2
        )
        self.bundles = Bundles(self._hand_over)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_forget, ref(self)))

    def _hand_over(self, bundle: Bundle) -> None:
        # A processor that batches looks at its context alone; `WholeSpans` stands behind it.
        self._batches.on_end(cast("ReadableSpan", bundle))

    @override
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing yet."""

    @override
    def on_end(self, span: ReadableSpan) -> None:
        """Have a span of the SDK exported, where it is sampled."""
        if span.context and span.context.trace_flags.sampled:
            self.bundles.add(span)

    @override
    def shutdown(self) -> None:
        """Export what waits, and take no more."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what waits."""
        return self._batches.force_flush(timeout_millis)


def _forget(processor: "ref[BundlingProcessor]") -> None:
    """Leave what waits to the parent of a fork."""
    found = processor()
    if found is not None:
        found.bundles.forget()


class WholeSpans(SpanExporter):
    """Hands bundles and quick spans to an exporter as it expects spans, others as they are."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export them, no more at a time than a batch has; raises what the last raised."""
        result, raised = _SUCCESS, None
        for part in in_parts(list(_unpacked(spans))):
            try:
                if self._exporter.export([whole(one) for one in part]) is not _SUCCESS:
                    result = SpanExportResult.FAILURE
            except Exception as exc:  # noqa: BLE001 - the other spans can't help it
                raised = exc
        if raised is not None:
            raise raised
        return result

    @override
    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have the exporter send what it has."""
        return self._exporter.force_flush(timeout_millis)


def _unpacked(spans: Sequence[object]) -> Iterator[object]:
    for one in spans:
        if isinstance(one, Bundle):
            yield from one.take()
        else:
            yield one
