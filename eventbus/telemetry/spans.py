"""The two tracing middlewares: a span for each emit, a span for each run of a listener.

Names and attributes follow the messaging conventions of OpenTelemetry. This module loads
OpenTelemetry; `eventbus.telemetry.tracing.setup` is how to get at it.
"""

import re
from collections.abc import Callable, Mapping
from contextvars import Context as Variables
from dataclasses import replace
from typing import cast

from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import Link, Span, SpanContext, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from eventbus.drivers.base import Receipt
from eventbus.envelope import Envelope
from eventbus.middleware.base import CallEmit, CallNext, Context
from eventbus.telemetry.quickspan import (
    CONVERSATION,
    MESSAGE,
    UNUSUAL,
    Pattern,
    QuickSpan,
    QuickSpans,
    holding,
    tell,
)

__all__ = ("SCOPE", "ConsumeTracing", "EmitTracing", "ProcessSpan", "SendSpan")

# Not the process's propagator: these headers are part of the wire.
_W3C_BAGGAGE = W3CBaggagePropagator()
_W3C = CompositePropagator([TraceContextTextMapPropagator(), _W3C_BAGGAGE])
_TRACEPARENT = "traceparent"
_USUAL = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_QUICK = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]").fullmatch
"""Of a span that is sampled."""
_BAGGAGE = "baggage"
_VERSION = "eventbus.event.version"
_ATTEMPT = "eventbus.attempt"
_SIZE = "messaging.message.body.size"
_KEPT = 1024
_NO_PATTERN = Pattern("", SpanKind.INTERNAL, {}, _SIZE)
_PRODUCER, _CONSUMER = SpanKind.PRODUCER, SpanKind.CONSUMER
SCOPE = "eventbus"
"""What the spans name as their library."""


class _Patterns:
    """The patterns of spans, each made once."""

    def __init__(self, subject: Callable[[str], str]) -> None:
        self._subject = subject
        self._emits: dict[str, Pattern] = {}
        self._runs: dict[tuple[str, int, str, str, str], Pattern] = {}

    def of_emit(self, name: str, version: int) -> Pattern:
        """Return that of the emits of an event."""
        found = self._emits.get(name)
        if found is None or found.facts[_VERSION] != version:
            facts = _operation("send", name, version, self._subject(name))
            found = self._emits[name] = Pattern(f"send {name}", _PRODUCER, facts, _SIZE)
        return found

    def of_run(
        self, name: str, version: int, subject: str, service: str, listener: str
    ) -> Pattern:
        """Return that of a listener's runs on an event."""
        key = name, version, subject, service, listener
        found = self._runs.get(key)
        if found is None:
            if len(self._runs) >= _KEPT:  # anybody can publish anything
                self._runs.clear()
            facts = {
                **_operation("process", name, version, subject),
                "messaging.consumer.group.name": f"{service}__{listener}",
                "eventbus.listener": listener,
            }
            found = self._runs[key] = Pattern(f"process {name}", _CONSUMER, facts, _ATTEMPT)
        return found


class SendSpan(QuickSpan):
    """The span of one emit."""

    def __init__(
        self, made_by: QuickSpans, patterns: "_Patterns", parent: str, is_remote: bool
    ) -> None:
        super().__init__(made_by, _NO_PATTERN, parent, is_remote)
        self._patterns = patterns

    def about(self, envelope: Envelope) -> None:
        """Take note what is emitted."""
        self.use(self._patterns.of_emit(envelope.name, envelope.version))
        # The strings alone: a span that waits for its export must not keep events alive.
        self.tell(envelope.id, envelope.correlation_id, len(envelope.body))

    def active(self) -> "_Active":
        """Make it the active span for a block."""
        return _Active(holding(self))


class ProcessSpan(QuickSpan):
    """The span of one run of a listener."""

    def activate(self, variables: Variables) -> None:
        """Make it the active span of what runs in a context, which is used for nothing else."""
        variables.run(otel.attach, holding(self))


class EmitTracing:
    """A PRODUCER span ``send <name>`` around each emit, whose context travels with the event.

    Its parent is the active span, else the trace of the scope (a request's, a handled event's).
    Where the parent isn't sampled and the sampler follows it, there is no span and the parent's
    context travels.
    """

    gives_brackets = True

    def __init__(
        self,
        provider: trace.TracerProvider | None = None,
        subject: Callable[[str], str] = str,
        quick: QuickSpans | None = None,
    ) -> None:
        provider = provider or trace.get_tracer_provider()
        self._tracer = provider.get_tracer(SCOPE)
        self._follows = _follows_parent(provider)
        self._patterns = _Patterns(subject)
        self._quick = quick

    def bracket(self, carried: Mapping[str, str]) -> SendSpan | None:
        """Begin the span of an emit; None where that is for the SDK."""
        quick = self._quick
        if quick is None:
            return None
        parent, is_remote = _parent_of_emit(carried)
        return (
            SendSpan(quick, self._patterns, parent, is_remote) if quick.can_make(parent) else None
        )

    async def __call__(self, envelope: Envelope, call_next: CallEmit) -> Receipt:
        """Emit within a span."""
        quick = self.bracket(envelope.trace)
        if quick is not None:
            quick.about(envelope)
            with _Within(quick, holding(quick)):
                return await call_next(envelope.traced({_TRACEPARENT: quick.traceparent}))
        parent = _surrounding(envelope.trace)
        if self._follows and _unsampled(_span_context(parent)):
            return await call_next(_carrying(envelope, parent))
        # At once, and not once it records: each setting of attributes takes a lock.
        facts: dict[str, str | int] = {
            **self._patterns.of_emit(envelope.name, envelope.version).facts,
            MESSAGE: envelope.id,
            CONVERSATION: envelope.correlation_id,
            _SIZE: len(envelope.body),
        }
        span = self._tracer.start_span(f"send {envelope.name}", parent, _PRODUCER, facts)
        within = trace.set_span_in_context(span, parent)
        with _Within(span, within):
            return await call_next(_carrying(envelope, within))


class ConsumeTracing:
    """A CONSUMER span ``process <name>`` around each run of a listener, active while it runs.

    The span that emitted the event is its parent, so that one trace shows the whole story, and
    is linked, as the conventions ask. Where that span wasn't sampled and the sampler follows the
    parent, there is no span; what the listener does then stays in the unsampled trace.
    """

    gives_brackets = True

    def __init__(
        self, provider: trace.TracerProvider | None = None, quick: QuickSpans | None = None
    ) -> None:
        provider = provider or trace.get_tracer_provider()
        self._tracer = provider.get_tracer(SCOPE)
        self._follows = _follows_parent(provider)
        self._quick = quick
        self._patterns = _Patterns(str)

    def pattern(
        self, name: str, version: int, subject: str, service: str, listener: str
    ) -> Pattern:
        """Return what the spans of one listener's runs on one event have in common."""
        return self._patterns.of_run(name, version, subject, service, listener)

    def bracket(
        self, pattern: Pattern, traceparent: str, event_id: str, correlation_id: str, attempt: int
    ) -> ProcessSpan | None:
        """Begin the span of a run; None where that is for the SDK."""
        quick = self._quick
        if quick is None or not quick.can_make(traceparent):
            return None
        if traceparent and _QUICK(traceparent) is None:
            return None
        span = ProcessSpan(quick, pattern, traceparent, True)
        span.tell(event_id, correlation_id, attempt)
        return span

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain within a span."""
        quick = self._bracket(context)
        if quick is not None:
            with _Within(quick, holding(quick)):
                await call_next(context)
            return
        # From nothing: where the driver delivers in the emitter's task, its span isn't the parent.
        parent = _extracted(context.trace)
        origin = _span_context(parent)
        if self._follows and _unsampled(origin):
            with _Active(parent):
                await call_next(context)
            return
        facts: dict[str, str | int] = {
            **self._pattern_of(context).facts,
            MESSAGE: context.id,
            CONVERSATION: context.correlation_id,
            _ATTEMPT: context.attempt,
        }
        span = self._tracer.start_span(
            f"process {context.name}",
            parent,
            _CONSUMER,
            facts,
            links=[Link(origin)] if origin.is_valid else None,
        )
        with _Within(span, trace.set_span_in_context(span, parent)):
            await call_next(context)

    def _bracket(self, context: Context) -> ProcessSpan | None:
        carried = context.trace
        traceparent = carried.get(_TRACEPARENT, "") if carried else ""
        if len(carried) != bool(traceparent) or self._quick is None:
            return None
        pattern = self._pattern_of(context)
        id, correlation_id, attempt = context.id, context.correlation_id, context.attempt
        return self.bracket(pattern, traceparent, id, correlation_id, attempt)

    def _pattern_of(self, context: Context) -> Pattern:
        name, subject, service = context.name, context.subject, context.service
        return self.pattern(name, context.version, subject, service, context.listener)


def _surrounding(carried: Mapping[str, str]) -> otel.Context:
    """Return the context an emit happens in: the running task's, else what its scope carries."""
    current = otel.get_current()
    if not carried or _span_context(current).is_valid:
        return current
    return _W3C.extract(carried, current)


def _extracted(carried: Mapping[str, str]) -> otel.Context:
    """Return the context that headers carry; the usual ones without a propagator's generality."""
    found = _USUAL.fullmatch(carried.get(_TRACEPARENT, ""))
    if found is None or len(carried) > 1:
        return _W3C.extract(carried, otel.Context())
    trace_id, span_id, flags = (int(one, 16) for one in found.groups())
    origin = SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags))
    if not origin.is_valid:
        return otel.Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(origin), otel.Context())


def _parent_of_emit(carried: Mapping[str, str]) -> tuple[str, bool]:
    """Return the parent of an emit's span, and whether it is remote; "" where it has none.

    `UNUSUAL` where it takes OpenTelemetry to tell.
    """
    current = otel.get_current()
    if not current:
        return _carried_parent(carried), True
    if len(current) > 1 or len(carried) > 1:
        return UNUSUAL, False  # baggage, for one
    span: object = trace.get_current_span(current)
    if isinstance(span, QuickSpan):
        return span.traceparent, False
    return _parent_in(trace.get_current_span(current).get_span_context())


def _carried_parent(carried: Mapping[str, str]) -> str:
    """Return the parent that headers name, as above."""
    if not carried:
        return ""
    found = carried.get(_TRACEPARENT, "")
    return found if len(carried) == 1 and _QUICK(found) is not None else UNUSUAL


def _parent_in(context: SpanContext) -> tuple[str, bool]:
    if not context.is_valid or context.trace_state or not context.trace_flags.sampled:
        return UNUSUAL, False
    return _written(context), context.is_remote


def _written(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"


def _span_context(context: otel.Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def _unsampled(parent: SpanContext) -> bool:
    return parent.is_valid and not parent.trace_flags.sampled


def _follows_parent(provider: trace.TracerProvider) -> bool:
    """Tell whether the sampler drops every span whose parent isn't sampled (the default does)."""
    sampler = getattr(provider, "sampler", None)
    described = sampler.get_description() if sampler is not None else ""
    return (
        "remoteParentNotSampled:AlwaysOffSampler" in described
        and "localParentNotSampled:AlwaysOffSampler" in described
    )


def _carrying(envelope: Envelope, context: otel.Context) -> Envelope:
    carrier: dict[str, str] = {}
    span = _span_context(context)
    if span.is_valid:
        carrier[_TRACEPARENT] = _written(span)
        if span.trace_state:
            carrier["tracestate"] = span.trace_state.to_header()
    if baggage.get_all(context):
        _W3C_BAGGAGE.inject(carrier, context)
    if _BAGGAGE in envelope.trace:
        carrier.setdefault(_BAGGAGE, envelope.trace[_BAGGAGE])
    return replace(envelope, trace=carrier)


def _operation(operation: str, name: str, version: int, subject: str) -> dict[str, str | int]:
    return {
        "messaging.system": "nats",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": subject,
        "messaging.destination.template": name,
        _VERSION: version,
    }


class _Active:
    """Makes a context the active one for a block."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: otel.Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = otel.attach(self._context)

    def __exit__(self, *_: object) -> None:
        otel.detach(self._token)


class _Within:
    """Makes a span's context the active one for a block, and ends the span with the block."""

    __slots__ = ("_context", "_span", "_token")

    def __init__(self, span: object, context: otel.Context) -> None:
        self._span = cast("Span", span)
        self._context = context

    def __enter__(self) -> None:
        self._token = otel.attach(self._context)

    def __exit__(
        self, _: type[BaseException] | None, raised: BaseException | None, __: object
    ) -> None:
        otel.detach(self._token)
        if raised is not None:
            tell(self._span, raised)
        self._span.end()
