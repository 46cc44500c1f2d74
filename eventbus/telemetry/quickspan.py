"""Spans that cost an event little: put together where they are exported, not where they are made.

A span of OpenTelemetry's SDK takes 20 microseconds of an event, most of them to copy and check
attributes. `QuickSpan` keeps what it was given, and becomes a `ReadableSpan` in the thread that
exports. It stands in for the SDK's in the usual case alone: `eventbus.telemetry.spans` has the
SDK make the others.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import getrandbits
from time import time_ns
from typing import TYPE_CHECKING, cast

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
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

from eventbus.errors import Discard, RetryLater, Signal, error_type
from eventbus.telemetry.bundles import Bundles

if TYPE_CHECKING:
    from eventbus.telemetry.provider import OwnProvider

__all__ = (
    "CONVERSATION",
    "LIMIT",
    "MESSAGE",
    "UNUSUAL",
    "More",
    "Pattern",
    "QuickSpan",
    "QuickSpans",
    "holding",
    "tell",
    "whole",
)

LIMIT = 128
"""How many attributes, events and links a span may get beside; the default of the SDK."""
UNUSUAL = "?"
"""Stands for a parent that isn't sampled, or has more than a ``traceparent``."""
MESSAGE = "messaging.message.id"
CONVERSATION = "messaging.message.conversation_id"
_ALWAYS = "AlwaysOnSampler"
_CONSUMER = SpanKind.CONSUMER
_BITS = 64
_BITS_OF_BOTH = 192
_SPAN_ID = (1 << _BITS) - 1
_RANDOM = "2367abef"
"""The last digits of flags that say that the trace id is random; it goes with the id."""
_FLAGS = tuple(TraceFlags(one) for one in range(256))

# How OpenTelemetry calls the span in a context; without asking it for each.
(_CURRENT,) = trace.set_span_in_context(trace.INVALID_SPAN, otel.Context())


def holding(span: "QuickSpan") -> otel.Context:
    """Return the context in which a span is the active one, and nothing else is set."""
    return otel.Context({_CURRENT: span})


_UNSET = Status(StatusCode.UNSET)


@dataclass(slots=True)
class More:
    """What is added to a span while it runs; to most nothing is."""

    attributes: dict[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    events: list[Event] = field(default_factory=list[Event])
    links: list[Link] = field(default_factory=list[Link])
    status: Status = field(default_factory=lambda: _UNSET)


_NOTHING = More()


class QuickSpans:
    """Makes the spans of one provider, all of them sampled."""

    def __init__(
        self, provider: "OwnProvider", processor: SpanProcessor | None, scope: str
    ) -> None:
        self.provider = provider
        self.scope = InstrumentationScope(scope)
        self.resource = provider.resource
        self._processor = processor
        bundles: object = getattr(processor, "bundles", None)
        self._bundles = bundles if isinstance(bundles, Bundles) else None
        sampler = provider.sampler.get_description()
        self._takes_roots = sampler == _ALWAYS or f"root:{_ALWAYS}" in sampler
        self._takes_children = sampler == _ALWAYS or all(
            f"{where}ParentSampled:{_ALWAYS}" in sampler for where in ("remote", "local")
        )
        ids = provider.id_generator
        self._ids = None if type(ids) is RandomIdGenerator else ids
        # Older releases of the SDK don't know this flag.
        random = getattr(ids, "is_trace_id_random", None)
        self.flags = "-03" if random is not None and random() else "-01"
        """Those of a trace that begins here."""

    def can_make(self, parent: str) -> bool:
        """Tell whether the sampler and all processors would take a quick span."""
        if self.provider.is_shared or parent == UNUSUAL:
            return False
        return self._takes_children if parent else self._takes_roots

    def new_ids(self, *, root: bool) -> int:
        """Return a new span id; behind a new trace id for a root."""
        ids = self._ids
        if ids is None:
            number = getrandbits(_BITS_OF_BOTH if root else _BITS)
            while not number & _SPAN_ID or (root and not number >> _BITS):
                number = getrandbits(_BITS_OF_BOTH if root else _BITS)
            return number
        number = ids.generate_span_id()
        return ids.generate_trace_id() << _BITS | number if root else number

    def hand_over(self, span: "QuickSpan") -> None:
        """Have a span exported that has ended."""
        if self._bundles is not None:
            self._bundles.add(span)
        elif self._processor is not None:
            # It looks at its context alone; `WholeSpans` stands behind it.
            self._processor.on_end(cast("ReadableSpan", span))


class Pattern:
    """What spans have in common that are about one event, sent or handled at one place."""

    __slots__ = ("attributes", "facts", "kind", "name", "number")

    def __init__(
        self, name: str, kind: SpanKind, attributes: dict[str, str | int], number: str
    ) -> None:
        self.name = name
        self.kind = kind
        self.facts = attributes
        """The attributes that all have."""
        # With room for what each has of its own.
        self.attributes = {**attributes, MESSAGE: "", CONVERSATION: "", number: 0}
        self.number = number
        """What the number of each is called."""


class QuickSpan:
    """One span; what is asked of it later it does as the SDK's.

    While it waits for its export it is one object, which refers to strings and numbers: thousands
    wait at a time, and the garbage collector looks at each.
    """

    def __init__(
        self, made_by: QuickSpans, pattern: Pattern, parent: str, is_remote: bool
    ) -> None:
        self._made_by = made_by
        self._pattern = pattern
        self._name = ""
        """The one that it got instead of the pattern's."""
        self._parent = parent
        """The ``traceparent`` of the span above it; empty for a root."""
        self._is_remote = is_remote
        """Whether that is in another process."""
        self._ids = made_by.new_ids(root=not parent)
        self._traceparent = ""
        self._event_id = ""
        self._conversation_id = ""
        self._number = 0
        self._more: More | None = None
        self._end = 0
        self._start = time_ns()

    def use(self, pattern: Pattern) -> None:
        """Take note what it has in common with others."""
        self._pattern = pattern

    def tell(self, event_id: str, conversation_id: str, number: int) -> None:
        """Take note which event it is about, and of the number that its pattern names."""
        self._event_id = event_id
        self._conversation_id = conversation_id
        self._number = number

    @property
    def traceparent(self) -> str:
        """What travels with an event that is emitted within it."""
        if not self._traceparent:
            parent = self._parent
            if parent:
                flags = "-03" if parent[54] in _RANDOM else "-01"
                self._traceparent = parent[:36] + self._ids.to_bytes(8, "big").hex() + flags
            else:
                ids = self._ids.to_bytes(24, "big").hex()
                self._traceparent = "00-" + ids[:32] + "-" + ids[32:] + self._made_by.flags
        return self._traceparent

    @property
    def context(self) -> SpanContext:
        """Its ids."""
        return self.get_span_context()

    def get_span_context(self) -> SpanContext:
        """Return its ids."""
        ids, parent = self._ids, self._parent
        if parent:
            flags = _FLAGS[3 if parent[54] in _RANDOM else 1]
            return SpanContext(int(parent[3:35], 16), ids, False, flags)
        flags = _FLAGS[int(self._made_by.flags[1:], 16)]
        return SpanContext(ids >> _BITS, ids & _SPAN_ID, False, flags)

    def __enter__(self) -> "QuickSpan":
        """Do nothing: it has begun."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end()

    def is_recording(self) -> bool:
        """Tell whether it hasn't ended."""
        return not self._end

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Add an attribute."""
        attributes = self._added().attributes
        if not self._end and (len(attributes) < LIMIT or key in attributes):
            attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Add something that happened within it."""
        events = self._added().events
        if not self._end and len(events) < LIMIT:
            events.append(Event(name, _checked(attributes), timestamp))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Add a span that it has to do with."""
        links = self._added().links
        if not self._end and len(links) < LIMIT and context.is_valid:
            links.append(Link(context, _checked(attributes)))

    def update_name(self, name: str) -> None:
        """Give it another name."""
        if not self._end:
            self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Say how it went; what is OK stays so, and unset changes nothing."""
        wanted = status if isinstance(status, Status) else Status(status, description)
        more = self._added()
        is_final = more.status.status_code is StatusCode.OK
        if not self._end and not is_final and wanted.status_code is not StatusCode.UNSET:
            more.status = wanted

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

    def end(self, end_time: int | None = None) -> None:
        """End it, and have it exported."""
        if not self._end:
            self._end = time_ns() if end_time is None else end_time
            self._made_by.hand_over(self)

    def whole(self) -> ReadableSpan:
        """Return what an exporter expects."""
        more, pattern, parent = self._more or _NOTHING, self._pattern, self._parent
        own, origin = self.get_span_context(), None
        links: Sequence[Link] = more.links
        if parent:
            span_id, flags = int(parent[36:52], 16), _FLAGS[int(parent[53:55], 16)]
            origin = SpanContext(own.trace_id, span_id, self._is_remote, flags)
            if pattern.kind is _CONSUMER:
                links = [Link(origin), *links] if links else (Link(origin),)
        facts = self._attributes()
        attributes = _checked({**facts, **more.attributes}) if more.attributes else facts
        return ReadableSpan(
            self._name or pattern.name,
            own,
            origin,
            self._made_by.resource,
            attributes,
            more.events,
            links,
            pattern.kind,
            status=more.status,
            start_time=self._start,
            end_time=self._end,
            instrumentation_scope=self._made_by.scope,
        )

    def _attributes(self) -> dict[str, str | int]:
        pattern = self._pattern
        attributes = pattern.attributes.copy()
        attributes[MESSAGE] = self._event_id
        attributes[CONVERSATION] = self._conversation_id
        attributes[pattern.number] = self._number
        return attributes

    def close(self, raised: BaseException | None = None) -> None:
        """End it as what is within has ended."""
        if raised is not None:
            tell(cast("Span", self), raised)
        self.end()

    def _added(self) -> More:
        if self._more is None:
            self._more = More()
        return self._more


# It inherits nothing, so that it is quick where it is compiled.
Span.register(QuickSpan)


def tell(span: Span, raised: BaseException) -> None:
    """Have a span say what was raised within it; a cancellation is no failure."""
    if isinstance(raised, (RetryLater, Discard)):
        # The listener chose this; it isn't an error.
        span.set_attribute("eventbus.signal", type(raised).__name__)
    elif isinstance(raised, Exception) and span.is_recording():
        if not isinstance(raised, Signal):
            span.record_exception(raised)
        span.set_attribute("error.type", error_type(raised))
        span.set_status(Status(StatusCode.ERROR, str(raised)))


def whole(span: object) -> ReadableSpan:
    """Return a span as an exporter expects it."""
    return span.whole() if isinstance(span, QuickSpan) else cast("ReadableSpan", span)


def _checked(attributes: Attributes) -> Attributes:
    """Return what an application gave without what can't be exported, as the SDK does."""
    return BoundedAttributes(LIMIT, attributes, immutable=True) if attributes else None
