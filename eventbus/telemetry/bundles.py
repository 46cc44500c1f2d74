"""`Bundles`: hands spans over for their export by the hundred, since each hand-over has its price."""

from collections import deque
from collections.abc import Callable
from itertools import islice

from opentelemetry.trace import SpanContext, TraceFlags

__all__ = ("LARGEST", "Bundle", "Bundles", "in_parts")

LARGEST = 512
"""Spans in a bundle, and in one call of an exporter; the default of the SDK."""
_OF_ALL = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class Bundle:
    """Spans that wait for their export as one; more may come until somebody takes them."""

    __slots__ = ("is_taken", "spans")

    def __init__(self) -> None:
        self.spans: deque[object] = deque()
        self.is_taken = False

    @property
    def context(self) -> SpanContext:
        """A context that is sampled, which is all that a processor wants to know."""
        return _OF_ALL

    def take(self) -> list[object]:
        """Return the spans that weren't taken before; safe in another thread."""
        self.is_taken = True
        taken: list[object] = []
        while self.spans:
            taken.append(self.spans.popleft())
        return taken


class Bundles:
    """Puts spans into bundles.

    Args:
        hand_over: Takes a bundle with its first span, so that it is exported in time.
    """

    def __init__(self, hand_over: Callable[[Bundle], None]) -> None:
        self._hand_over = hand_over
        self._open = Bundle()
        self._open.is_taken = True

    def add(self, span: object) -> None:
        """Have a span exported."""
        bundle = self._open
        spans = bundle.spans
        if bundle.is_taken or len(spans) >= LARGEST:
            self._begin(span)
            return
        spans.append(span)
        if bundle.is_taken:  # by the thread that exports, since we looked
            self._hand_over(bundle)

    def _begin(self, span: object) -> None:
        bundle = Bundle()
        bundle.spans.append(span)
        self._open = bundle
        self._hand_over(bundle)

    def forget(self) -> None:
        """Have nothing to do with what was added; for the child of a fork."""
        self._open.take()


def in_parts(spans: list[object]) -> list[list[object]]:
    """Return as many at a time as an exporter gets in one call."""
    rest = iter(spans)
    parts: list[list[object]] = []
    while part := list(islice(rest, LARGEST)):
        parts.append(part)
    return parts
