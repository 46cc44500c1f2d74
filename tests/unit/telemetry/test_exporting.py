"""Spans come to the exporter all, whole, and no more at a time than the SDK hands over."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, SpanKind
from typing_extensions import override

from eventbus.telemetry.bundles import LARGEST, Bundle, Bundles
from eventbus.telemetry.exporting import BundlingProcessor, WholeSpans
from eventbus.telemetry.provider import OwnProvider
from eventbus.telemetry.quickspan import Pattern, QuickSpan, QuickSpans
from eventbus.telemetry.spans import SCOPE

PATTERN = Pattern("work", SpanKind.INTERNAL, {}, "work.size")


class Parts(SpanExporter):
    """Keeps what it gets by the call; the first one may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.parts: list[list[ReadableSpan]] = []
        self.error = error

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.parts.append(list(spans))
        error, self.error = self.error, None
        if error is not None:
            raise error
        return SpanExportResult.SUCCESS


def spans_to(
    processor: BatchSpanProcessor | BundlingProcessor | SimpleSpanProcessor,
) -> QuickSpans:
    provider = OwnProvider()
    provider.export_to(processor)
    return QuickSpans(provider, processor, SCOPE)


def make(spans: QuickSpans, count: int) -> list[int]:
    """Begin and end spans; return their ids."""
    made = [QuickSpan(spans, PATTERN, "", False) for _ in range(count)]
    for one in made:
        one.end()
    return [one.context.span_id for one in made]


def ids_of(spans: Sequence[ReadableSpan]) -> list[int]:
    return [one.context.span_id for one in spans]


def test_all_spans_are_exported_in_their_order_and_in_parts() -> None:
    exporter = Parts()
    processor = BundlingProcessor(exporter)
    spans = spans_to(processor)

    made = make(spans, 2 * LARGEST + 3)
    processor.force_flush()
    made += make(spans, 2)
    processor.shutdown()

    assert [one for part in exporter.parts for one in ids_of(part)] == made
    assert max(len(part) for part in exporter.parts) <= LARGEST
    assert all(type(one) is ReadableSpan for part in exporter.parts for one in part)


def test_spans_of_the_sdk_are_bundled_too() -> None:
    exporter = Parts()
    processor = BundlingProcessor(exporter)
    spans = spans_to(processor)
    tracer = spans.provider.get_tracer("app")

    for name in ("a", "b", "c"):
        tracer.start_span(name).end()
    made = make(spans, 1)
    processor.shutdown()

    (part,) = exporter.parts
    assert [one.name for one in part[:3]] == ["a", "b", "c"]
    assert ids_of(part)[3:] == made


def test_a_part_that_is_refused_takes_no_other_with_it() -> None:
    exporter = Parts(OSError("no route"))
    bundles = [Bundle() for _ in range(2)]
    for bundle in bundles:
        bundle.spans.extend([object()] * LARGEST)

    with pytest.raises(OSError, match="no route"):
        WholeSpans(exporter).export(bundles)

    assert [len(one) for one in exporter.parts] == [LARGEST, LARGEST]


def test_a_failed_part_fails_the_export() -> None:
    class Failing(Parts):
        @override
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.FAILURE

    assert WholeSpans(Failing()).export([object()]) is SpanExportResult.FAILURE


def test_a_span_that_comes_while_its_bundle_is_taken_is_handed_over() -> None:
    class Taken(deque[object]):
        @override
        def append(self, one: object, /) -> None:
            handed[0].take()  # by another thread
            super().append(one)

    handed: list[Bundle] = []
    bundles = Bundles(handed.append)
    bundles.add("first")
    handed[0].spans = Taken(handed[0].spans)

    bundles.add("second")

    assert len(handed) == 2
    assert handed[1].take() == ["second"]


def test_the_child_of_a_fork_exports_its_own_spans_alone() -> None:
    code = """
import os
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from eventbus.telemetry.tracing import setup

class Told(SpanExporter):
    def export(self, spans):
        for one in spans:
            os.write(1, f"{place} {one.attributes['messaging.message.id']}\\n".encode())
        return SpanExportResult.SUCCESS

def emit(id):
    spans = made.emit.bracket({})
    spans.about(envelope(id))
    spans.end()

def envelope(id):
    from eventbus.envelope import Envelope
    return Envelope(None, b"{}", id, "a.b", 1, None, "s", None, "c", None)

place = "parent"
made = setup("user", exporter=Told())
emit("before")
child = os.fork()
if not child:
    place = "child"
emit("after")
if child:
    os.waitpid(child, 0)
made.shutdown()
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}

    told = subprocess.check_output([sys.executable, "-c", code], env=env, text=True, timeout=60)

    assert told.splitlines() == ["child after", "parent before", "parent after"]


def test_what_the_variables_say_of_batches_is_left_to_the_sdk() -> None:
    code = (
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import *\n"
        "from eventbus.telemetry.tracing import setup\n"
        "provider = setup('user', exporter=InMemorySpanExporter()).emit._tracer.span_processor\n"
        "print(*[type(one).__name__ for one in provider._span_processors])\n"
    )
    printed = [
        subprocess.check_output(
            [sys.executable, "-c", code], env={**os.environ, **more}, text=True, timeout=60
        )
        for more in ({}, {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "64"})
    ]

    assert printed == ["BundlingProcessor\n", "BatchSpanProcessor\n"]


def test_a_quick_span_can_all_that_a_span_can() -> None:
    public = {one for one in dir(Span) if not one.startswith("_")}

    assert public - set(dir(QuickSpan)) == set()
    assert issubclass(QuickSpan, Span)


def test_a_quick_span_ends_with_its_block() -> None:
    exporter = InMemorySpanExporter()
    span = QuickSpan(spans_to(SimpleSpanProcessor(WholeSpans(exporter))), PATTERN, "", False)

    with span as entered:
        assert entered is span
        assert span.is_recording()

    assert not span.is_recording()
    assert ids_of(exporter.get_finished_spans()) == [span.context.span_id]
