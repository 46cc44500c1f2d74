"""Spans that cost an event little: put together where they are exported, not where they are made.

A span of OpenTelemetry's SDK takes 20 microseconds of an event, most of them to copy and check
attributes. `QuickSpan` keeps what it was given, and becomes a `ReadableSpan` in the thread that
exports. It stands in for the SDK's in the usual case alone: `eventbus.telemetry.spans` has the
SDK make the others.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import time_ns
from typing import Any, TypeAlias, cast

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.util.types import Attributes, AttributeValue
from typing_extensions import override

from eventbus.record import quick

__all__ = (
    "UNUSUAL",
    "EndedSpan",
    "Facts",
    "More",
    "Origin",
    "OwnProvider",
    "QuickSpan",
    "QuickSpans",
    "WholeSpans",
    "attributes_of",
    "context_of",
)

Facts: TypeAlias = tuple[Any, ...]
"""What makes the attributes that a span has from its start: a function, and what it takes."""

LIMIT = 128
"""How many attributes, events and links a span may get beside; the default of the SDK."""
_ALWAYS = "AlwaysOnSampler"
_SAMPLED = 0x01
_RANDOM = 0x02
"""The flag of a trace id that is random; it goes with the id."""


Origin: TypeAlias = tuple[str, str, int, bool]
"""A span as a ``traceparent`` has it: trace id, span id, flags; and whether it is remote."""
UNUSUAL: Origin = ("", "", 0, False)
"""Stands for a parent that isn't sampled, or has more than ids."""


def context_of(origin: Origin) -> SpanContext:
    """Return it as OpenTelemetry has it."""
    trace_id, span_id, flags, is_remote = origin
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote, TraceFlags(flags))


def attributes_of(facts: Facts) -> dict[str, str | int]:
    """Return the attributes."""
    made: dict[str, str | int] = facts[0](*facts[1:])
    return made


_UNSET = Status(StatusCode.UNSET)


@dataclass(slots=True)
class More:
    """What is added to a span while it runs; to most nothing is."""

    attributes: dict[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    events: list[Event] = field(default_factory=list[Event])
    links: list[Link] = field(default_factory=list[Link])
    status: Status = field(default_factory=lambda: _UNSET)


_NOTHING = More()
_OF_ALL = SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(_SAMPLED))


class OwnProvider(TracerProvider):
    """A provider that can tell whether its spans go nowhere but to its own exporter."""

    is_shared = False
    """Whether an application has added a processor, which has to see whole spans."""

    @override
    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Tell this one of the spans too."""
        self.is_shared = True
        super().add_span_processor(span_processor)

    def export_to(self, processor: SpanProcessor) -> None:
        """Have the spans exported; takes quick ones too."""
        super().add_span_processor(processor)


class QuickSpans:
    """Makes the spans of one provider, all of them sampled."""

    def __init__(self, provider: OwnProvider, processor: SpanProcessor | None, scope: str) -> None:
        self.provider = provider
        self.processor = processor
        self.scope = InstrumentationScope(scope)
        self._ids = provider.id_generator
        sampler = provider.sampler.get_description()
        self._takes_roots = sampler == _ALWAYS or f"root:{_ALWAYS}" in sampler
        self._takes_children = sampler == _ALWAYS or all(
            f"{where}ParentSampled:{_ALWAYS}" in sampler for where in ("remote", "local")
        )
        # Older releases of the SDK don't know this flag.
        random = getattr(self._ids, "is_trace_id_random", None)
        self._flags = _SAMPLED | (_RANDOM if random is not None and random() else 0)

    def can_make(self, origin: Origin | None) -> bool:
        """Tell whether the sampler and all processors would take a quick span."""
        if self.provider.is_shared or origin is UNUSUAL:
            return False
        return self._takes_roots if origin is None else self._takes_children

    def start(self, name: str, kind: SpanKind, origin: Origin | None, facts: Facts) -> "QuickSpan":
        """Return a span that begins now; a root where it has no origin."""
        span_id = f"{self._ids.generate_span_id():016x}"
        if origin is None:
            own = f"{self._ids.generate_trace_id():032x}", span_id, self._flags, False
        else:
            own = origin[0], span_id, origin[2] & _RANDOM | _SAMPLED, False
        return QuickSpan(self, name, kind, own, origin, facts)


class QuickSpan(Span):
    """One span; what is asked of it later it does as the SDK's."""

    def __init__(
        self,
        made_by: QuickSpans,
        name: str,
        kind: SpanKind,
        own: Origin,
        origin: Origin | None,
        facts: Facts,
    ) -> None:
        self._made_by = made_by
        self._name = name
        self._kind = kind
        self.own = own
        self._origin = origin
        self._facts = facts
        self._context: SpanContext | None = None
        self._more: More | None = None
        self._end = 0
        self._start = time_ns()

    @property
    def traceparent(self) -> str:
        """What travels with an event that is emitted within it."""
        trace_id, span_id, flags, _ = self.own
        return f"00-{trace_id}-{span_id}-{flags:02x}"

    @override
    def get_span_context(self) -> SpanContext:
        """Return its ids."""
        found = self._context
        if found is None:
            found = self._context = context_of(self.own)
        return found

    @override
    def is_recording(self) -> bool:
        """Tell whether it hasn't ended."""
        return not self._end

    @override
    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add an attribute."""
        attributes = self._added().attributes
        if not self._end and (len(attributes) < LIMIT or key in attributes):
            attributes[key] = value

    @override
    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    @override
    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add something that happened within it."""
        events = self._added().events
        if not self._end and len(events) < LIMIT:
            events.append(Event(name, _checked(attributes), timestamp))

    @override
    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a span that it has to do with."""
        links = self._added().links
        if not self._end and len(links) < LIMIT and context.is_valid:
            links.append(Link(context, _checked(attributes)))

    @override
    def update_name(self, name: str) -> None:
        """Give it another name."""
        if not self._end:
            self._name = name

    @override
    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went; what is OK stays so, and unset changes nothing."""
        wanted = status if isinstance(status, Status) else Status(status, description)
        more = self._added()
        is_final = more.status.status_code is StatusCode.OK
        if not self._end and not is_final and wanted.status_code is not StatusCode.UNSET:
            more.status = wanted

    @override
    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Add an exception as an event, with its stack."""
        kind = type(exception)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        told: dict[str, AttributeValue] = {
            "exception.type": f"{module}{kind.__qualname__}",
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    @override
    def end(self, end_time: int | None = None) -> None:
        """End it, and have it exported."""
        if self._end:
            return
        self._end = time_ns() if end_time is None else end_time
        processor = self._made_by.processor
        if processor is not None:
            ended = EndedSpan(
                self._made_by,
                self._name,
                self._kind,
                self.own,
                self._origin,
                self._facts,
                self._more,
                self._start,
                self._end,
            )
            # A processor that batches looks at its context alone; `WholeSpans` stands behind it.
            processor.on_end(cast("ReadableSpan", ended))

    def _added(self) -> "More":
        if self._more is None:
            self._more = More()
        return self._more


@quick
@dataclass(frozen=True, slots=True)
class EndedSpan:
    """A span that waits for its export: one object, which refers to strings and numbers.

    Thousands wait at a time, and the garbage collector looks at each object of them.
    """

    made_by: QuickSpans
    name: str
    kind: SpanKind
    own: Origin
    origin: Origin | None
    facts: Facts
    more: More | None
    start: int
    end: int

    @property
    def context(self) -> SpanContext:
        """A context that is sampled, which is all that a processor wants to know."""
        return _OF_ALL

    def whole(self) -> ReadableSpan:
        """Return what an exporter expects."""
        more = self.more or _NOTHING
        origin = None if self.origin is None else context_of(self.origin)
        facts = attributes_of(self.facts)
        attributes = _checked({**facts, **more.attributes}) if more.attributes else facts
        linked = [Link(origin)] if origin is not None and self.kind is SpanKind.CONSUMER else []
        return ReadableSpan(
            name=self.name,
            context=context_of(self.own),
            parent=origin,
            resource=self.made_by.provider.resource,
            attributes=attributes,
            events=more.events,
            links=[*linked, *more.links],
            kind=self.kind,
            status=more.status,
            start_time=self.start,
            end_time=self.end,
            instrumentation_scope=self.made_by.scope,
        )


class WholeSpans(SpanExporter):
    """Hands quick spans to an exporter as it expects them, others as they are."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export them."""
        return self._exporter.export([_whole(one) for one in spans])

    @override
    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have the exporter send what it has."""
        return self._exporter.force_flush(timeout_millis)


def _whole(span: object) -> ReadableSpan:
    return span.whole() if isinstance(span, EndedSpan) else cast("ReadableSpan", span)


def _checked(attributes: Attributes) -> Attributes:
    """Return what an application gave without what can't be exported, as the SDK does."""
    return BoundedAttributes(LIMIT, attributes, immutable=True) if attributes else None
