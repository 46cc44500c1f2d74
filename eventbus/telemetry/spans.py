"""The two tracing middlewares: a span for each emit, a span for each run of a listener.

Names and attributes follow the messaging conventions of OpenTelemetry. This module loads
OpenTelemetry; `eventbus.telemetry.tracing.setup` is how to get at it.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from eventbus.drivers.base import Receipt
from eventbus.envelope import Envelope
from eventbus.errors import Discard, RetryLater, Signal, error_type
from eventbus.middleware.base import CallEmit, CallNext, Context

__all__ = ("ConsumeTracing", "EmitTracing")

# Not the process's propagator: these headers are part of the wire (DESIGN.md section 5).
_W3C = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
_BAGGAGE = "baggage"
_SCOPE = "eventbus"


class EmitTracing:
    """A PRODUCER span ``send <name>`` around each emit, whose context travels with the event.

    Its parent is the active span, else the trace of the scope (a request's, a handled event's).
    Where the parent isn't sampled and the sampler follows it, there is no span and the parent's
    context travels.
    """

    def __init__(
        self, provider: trace.TracerProvider | None = None, subject: Callable[[str], str] = str
    ) -> None:
        provider = provider or trace.get_tracer_provider()
        self._tracer = provider.get_tracer(_SCOPE)
        self._follows = _follows_parent(provider)
        self._subject = subject

    async def __call__(self, envelope: Envelope, call_next: CallEmit) -> Receipt:
        """Emit within a span."""
        parent = _surrounding(envelope.trace)
        if self._follows and _unsampled(_span_context(parent)):
            return await call_next(_carrying(envelope, parent))
        span = self._tracer.start_span(
            f"send {envelope.name}",
            parent,
            SpanKind.PRODUCER,
            _operation("send", envelope.name, self._subject(envelope.name)),
        )
        if span.is_recording():
            span.set_attributes(
                {
                    "messaging.message.id": envelope.id,
                    "messaging.message.conversation_id": envelope.correlation_id,
                    "messaging.message.body.size": len(envelope.body),
                    "eventbus.event.version": envelope.version,
                }
            )
        within = trace.set_span_in_context(span, parent)
        with _ended(span), _active(within):
            return await call_next(_carrying(envelope, within))


class ConsumeTracing:
    """A CONSUMER span ``process <name>`` around each run of a listener, active while it runs.

    The span that emitted the event is its parent, so that one trace shows the whole story, and
    is linked, as the conventions ask. Where that span wasn't sampled and the sampler follows the
    parent, there is no span; what the listener does then stays in the unsampled trace.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        provider = provider or trace.get_tracer_provider()
        self._tracer = provider.get_tracer(_SCOPE)
        self._follows = _follows_parent(provider)

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain within a span."""
        # From nothing: where the driver delivers in the emitter's task, its span isn't the parent.
        parent = _W3C.extract(context.trace, otel.Context())
        origin = _span_context(parent)
        if self._follows and _unsampled(origin):
            with _active(parent):
                await call_next(context)
            return
        span = self._tracer.start_span(
            f"process {context.name}",
            parent,
            SpanKind.CONSUMER,
            _operation("process", context.name, context.subject),
            links=[Link(origin)] if origin.is_valid else None,
        )
        if span.is_recording():
            span.set_attributes(_handled(context))
        with _ended(span), _active(trace.set_span_in_context(span, parent)):
            await call_next(context)


def _surrounding(carried: Mapping[str, str]) -> otel.Context:
    """Return the context an emit happens in: the running task's, else what its scope carries."""
    current = otel.get_current()
    if not carried or _span_context(current).is_valid:
        return current
    return _W3C.extract(carried, current)


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
    _W3C.inject(carrier, context)
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


def _handled(context: Context) -> dict[str, str | int]:
    return {
        "messaging.consumer.group.name": f"{context.service}__{context.listener}",
        "messaging.message.id": context.id,
        "messaging.message.conversation_id": context.correlation_id,
        "eventbus.listener": context.listener,
        "eventbus.attempt": context.attempt,
        "eventbus.event.version": context.version,
    }


@contextmanager
def _active(context: otel.Context) -> Generator[None]:
    token = otel.attach(context)
    try:
        yield
    finally:
        otel.detach(token)


@contextmanager
def _ended(span: Span) -> Generator[None]:
    try:
        yield
    except (RetryLater, Discard) as signal:
        # The listener chose this; it isn't an error.
        span.set_attribute("eventbus.signal", type(signal).__name__)
        raise
    except Exception as exc:
        if span.is_recording():
            _failed(span, exc)
        raise
    finally:
        span.end()


def _failed(span: Span, error: Exception) -> None:
    if not isinstance(error, Signal):
        span.record_exception(error)
    span.set_attribute("error.type", error_type(error))
    span.set_status(Status(StatusCode.ERROR, str(error)))
