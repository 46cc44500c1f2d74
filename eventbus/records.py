"""What is told of a delivery: its context to the listener, the record of its end to observers."""

from datetime import datetime

from eventbus import headers as h
from eventbus.delivery import DeadLetter, Decision, Drop, Nak, Outcome, Park, Readable
from eventbus.envelope import NO_HEADERS, Envelope
from eventbus.glance import Glance
from eventbus.middleware.base import Context, Emit
from eventbus.settlement import Run
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import Settled

__all__ = ("context_of", "glanced_of", "handled_of", "settled_of")


def context_of(run: Run, envelope: Envelope, subscription: Subscription, emit: Emit) -> Context:
    """Return what a listener may know of the event that a run is about."""
    delivery = run.delivery
    return Context(
        event=envelope.event,
        id=envelope.id,
        name=envelope.name,
        version=envelope.version,
        key=envelope.key,
        time=envelope.time,
        source=envelope.source,
        correlation_id=envelope.correlation_id,
        causation_id=envelope.causation_id,
        attempt=run.verdict.attempt,
        listener=subscription.listener,
        service=subscription.service,
        headers=envelope.headers,
        tags=envelope.tags,
        trace=envelope.trace,
        subject=delivery.message.subject,
        stream=delivery.stream,
        sequence=delivery.sequence,
        emit=emit,
        is_replay=subscription.is_replay,
    )


def glanced_of(glance: Glance, delivery: Readable, one: Subscription, emit: Emit) -> Context:
    """Return what `context_of` does of an event at its first delivery."""
    plan = glance.plan
    return Context(  # by position, which is quicker
        glance.event,
        glance.id,
        plan.name,
        plan.version,
        glance.key,
        glance.time,
        plan.source,
        glance.correlation_id,
        glance.causation_id,
        1,
        one.listener,
        one.service,
        NO_HEADERS,
        plan.tags,
        glance.traced(),
        delivery.arrived.subject_bytes.decode(),
        delivery.stream,
        delivery.sequence,
        emit,
        one.is_replay,
    )


def settled_of(
    run: Run,
    decision: Decision,
    outcome: Outcome,
    one: Subscription,
    *,
    attempts: int,
    now: datetime,
) -> Settled:
    """Return the record of how a delivery ended.

    Args:
        run: The delivery, and what became of it.
        decision: What was decided about it.
        outcome: How it ended.
        one: Whose delivery it was.
        attempts: How many attempts there are in total.
        now: When the server knew that it is settled.
    """
    delivery, envelope = run.delivery, run.envelope
    elapsed = None
    if envelope is not None:
        # Of a delayed event the wait isn't slowness.
        since = envelope.due or envelope.time
        elapsed = (now - since).total_seconds()
    return Settled(
        name=run.name,
        id=envelope.id if envelope else delivery.message.headers.get(h.ID, ""),
        service=one.service,
        listener=one.listener,
        outcome=outcome,
        attempt=run.verdict.attempt,
        attempts=attempts,
        duration=run.duration,
        end_to_end=elapsed,
        correlation_id=envelope.correlation_id if envelope else "",
        causation_id=envelope.causation_id if envelope else None,
        reason=decision.reason if isinstance(decision, DeadLetter) else None,
        detail=_detail(decision),
        delay=decision.delay if isinstance(decision, (Nak, Park)) else None,
        error=run.error,
        stream=delivery.stream,
        sequence=delivery.sequence,
        subject=delivery.message.subject,
        emitted_at=envelope.time if envelope else None,
        trace=envelope.trace.get("traceparent", "") if envelope else "",
        redrive=run.redrive,
        tags=envelope.tags if envelope else (),
    )


def handled_of(
    glance: Glance,
    delivery: Readable,
    one: Subscription,
    attempts: int,
    duration: float,
    now: datetime,
) -> Settled:
    """Return what `settled_of` does of an event that was handled at its first delivery."""
    time, plan = glance.time, glance.plan
    return Settled(  # by position, which is quicker
        plan.name,
        glance.id,
        one.service,
        one.listener,
        Outcome.OK,
        1,
        attempts,
        duration,
        (now - time).total_seconds(),
        glance.correlation_id,
        glance.causation_id,
        stream=delivery.stream,
        sequence=delivery.sequence,
        subject=delivery.arrived.subject_bytes.decode(),
        emitted_at=time,
        trace=glance.trace or "",
        tags=plan.tags,
    )


def _detail(decision: Decision) -> str:
    match decision:
        case DeadLetter(detail=detail):
            return detail
        case Drop(reason=reason):
            return reason
        case _:
            return ""
