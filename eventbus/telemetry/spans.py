"""The two tracing middlewares: a span for each emit, a span for each run of a listener.

Names and attributes follow the messaging conventions of OpenTelemetry. This module loads
OpenTelemetry; `eventbus.telemetry.tracing.setup` is how to get at it.
"""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from eventbus.drivers.base import Receipt
from eventbus.envelope import Envelope
from eventbus.errors import Discard, RetryLater, Signal, error_type
from eventbus.middleware.base import CallEmit, CallNext, Context
from eventbus.telemetry.quickspan import (
    UNUSUAL,
    Facts,
    Origin,
    QuickSpan,
    QuickSpans,
    attributes_of,
)

__all__ = ("SCOPE", "ConsumeTracing", "EmitTracing")

# Not the process's propagator: these headers are part of the wire.
_W3C_BAGGAGE = W3CBaggagePropagator()
_W3C = CompositePropagator([TraceContextTextMapPropagator(), _W3C_BAGGAGE])
_TRACEPARENT = "traceparent"
_USUAL = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_BAGGAGE = "baggage"
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16
SCOPE = "eventbus"
"""What the spans name as their library."""


class EmitTracing:
    """A PRODUCER span ``send <name>`` around each emit, whose context travels with the event.

    Its parent is the active span, else the trace of the scope (a request's, a handled event's).
    Where the parent isn't sampled and the sampler follows it, there is no span and the parent's
    context travels.
    """

    def __init__(
        self,
        provider: trace.TracerProvider | None = None,
        subject: Callable[[str], str] = str,
        quick: QuickSpans | None = None,
    ) -> None:
        provider = provider or trace.get_tracer_provider()
        self._tracer = provider.get_tracer(SCOPE)
        self._follows = _follows_parent(provider)
        self._subject = subject
        self._quick = quick

    async def __call__(self, envelope: Envelope, call_next: CallEmit) -> Receipt:
        """Emit within a span."""
        if self._quick is not None:
            origin = _origin_of_emit(envelope.trace)
            if self._quick.can_make(origin):
                name = f"send {envelope.name}"
                quick = self._quick.start(name, SpanKind.PRODUCER, origin, self._facts(envelope))
                with _Within(quick, trace.set_span_in_context(quick)):
                    return await call_next(envelope.traced({_TRACEPARENT: quick.traceparent}))
        parent = _surrounding(envelope.trace)
        if self._follows and _unsampled(_span_context(parent)):
            return await call_next(_carrying(envelope, parent))
        # At once, and not once it records: each setting of attributes takes a lock.
        facts = attributes_of(self._facts(envelope))
        span = self._tracer.start_span(f"send {envelope.name}", parent, SpanKind.PRODUCER, facts)
        within = trace.set_span_in_context(span, parent)
        with _Within(span, within):
            return await call_next(_carrying(envelope, within))

    def _facts(self, envelope: Envelope) -> Facts:
        # The strings alone: a span that waits for its export must not keep events alive.
        return (
            _sent,
            self._subject,
            envelope.name,
            envelope.id,
            envelope.correlation_id,
            len(envelope.body),
            envelope.version,
        )


class ConsumeTracing:
    """A CONSUMER span ``process <name>`` around each run of a listener, active while it runs.

    The span that emitted the event is its parent, so that one trace shows the whole story, and
    is linked, as the conventions ask. Where that span wasn't sampled and the sampler follows the
    parent, there is no span; what the listener does then stays in the unsampled trace.
    """

    def __init__(
        self, provider: trace.TracerProvider | None = None, quick: QuickSpans | None = None
    ) -> None:
        provider = provider or trace.get_tracer_provider()
        self._tracer = provider.get_tracer(SCOPE)
        self._follows = _follows_parent(provider)
        self._quick = quick

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain within a span."""
        if self._quick is not None:
            carried = _origin_of(context.trace)
            if self._quick.can_make(carried):
                name, facts = f"process {context.name}", _facts(context)
                quick = self._quick.start(name, SpanKind.CONSUMER, carried, facts)
                with _Within(quick, trace.set_span_in_context(quick, otel.Context())):
                    await call_next(context)
                return
        # From nothing: where the driver delivers in the emitter's task, its span isn't the parent.
        parent = _extracted(context.trace)
        origin = _span_context(parent)
        if self._follows and _unsampled(origin):
            with _active(parent):
                await call_next(context)
            return
        span = self._tracer.start_span(
            f"process {context.name}",
            parent,
            SpanKind.CONSUMER,
            attributes_of(_facts(context)),
            links=[Link(origin)] if origin.is_valid else None,
        )
        with _Within(span, trace.set_span_in_context(span, parent)):
            await call_next(context)


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


def _origin_of_emit(carried: Mapping[str, str]) -> Origin | None:
    """Return the parent of an emit's span; `UNUSUAL` where it takes OpenTelemetry to tell."""
    current = otel.get_current()
    if not current:
        return _origin_of(carried)
    span = trace.get_current_span(current)
    if len(current) > 1 or len(carried) > 1:
        return UNUSUAL  # baggage, for one
    if isinstance(span, QuickSpan):
        return span.own
    context = span.get_span_context()
    if not context.is_valid or context.trace_state or not context.trace_flags.sampled:
        return UNUSUAL
    flags, is_remote = int(context.trace_flags), context.is_remote
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", flags, is_remote


def _origin_of(carried: Mapping[str, str]) -> Origin | None:
    """Return the parent that headers name, None for none; `UNUSUAL` as above."""
    if not carried:
        return None
    found = _USUAL.fullmatch(carried.get(_TRACEPARENT, ""))
    if found is None or len(carried) > 1:
        return UNUSUAL
    trace_id, span_id, flags = found.groups()
    number = int(flags, 16)
    if not number & 1 or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return UNUSUAL
    return trace_id, span_id, number, True


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
        flags = int(span.trace_flags)
        carrier[_TRACEPARENT] = f"00-{span.trace_id:032x}-{span.span_id:016x}-{flags:02x}"
        if span.trace_state:
            carrier["tracestate"] = span.trace_state.to_header()
    if baggage.get_all(context):
        _W3C_BAGGAGE.inject(carrier, context)
    if _BAGGAGE in envelope.trace:
        carrier.setdefault(_BAGGAGE, envelope.trace[_BAGGAGE])
    return replace(envelope, trace=carrier)


def _operation(operation: str, name: str, subject: str) -> dict[str, str]:
    """Return what a sampler may want to know when the span starts."""
    return {
        "messaging.system": "nats",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": subject,
        "messaging.destination.template": name,
    }


def _sent(
    subject: Callable[[str], str],
    name: str,
    event_id: str,
    correlation_id: str,
    size: int,
    version: int,
) -> dict[str, str | int]:
    return {
        **_operation("send", name, subject(name)),
        "messaging.message.id": event_id,
        "messaging.message.conversation_id": correlation_id,
        "messaging.message.body.size": size,
        "eventbus.event.version": version,
    }


def _facts(context: Context) -> Facts:
    return (
        _handled,
        context.name,
        context.subject,
        context.service,
        context.listener,
        context.id,
        context.correlation_id,
        context.attempt,
        context.version,
    )


def _handled(  # noqa: PLR0913, PLR0917 - one for each that an attribute is made of
    name: str,
    subject: str,
    service: str,
    listener: str,
    event_id: str,
    correlation_id: str,
    attempt: int,
    version: int,
) -> dict[str, str | int]:
    return {
        **_operation("process", name, subject),
        "messaging.consumer.group.name": f"{service}__{listener}",
        "messaging.message.id": event_id,
        "messaging.message.conversation_id": correlation_id,
        "eventbus.listener": listener,
        "eventbus.attempt": attempt,
        "eventbus.event.version": version,
    }


@contextmanager
def _active(context: otel.Context) -> Generator[None]:
    token = otel.attach(context)
    try:
        yield
    finally:
        otel.detach(token)


class _Within:
    """Makes a span's context the active one for a block, and ends the span with the block."""

    __slots__ = ("_context", "_span", "_token")

    def __init__(self, span: Span, context: otel.Context) -> None:
        self._span = span
        self._context = context

    def __enter__(self) -> None:
        self._token = otel.attach(self._context)

    def __exit__(
        self, _: type[BaseException] | None, raised: BaseException | None, __: object
    ) -> None:
        otel.detach(self._token)
        span = self._span
        if isinstance(raised, (RetryLater, Discard)):
            # The listener chose this; it isn't an error.
            span.set_attribute("eventbus.signal", type(raised).__name__)
        elif isinstance(raised, Exception) and span.is_recording():
            _failed(span, raised)
        span.end()


def _failed(span: Span, error: Exception) -> None:
    if not isinstance(error, Signal):
        span.record_exception(error)
    span.set_attribute("error.type", error_type(error))
    span.set_status(Status(StatusCode.ERROR, str(error)))
