"""One delivery: decode, run the chain, decide, settle. Nothing else settles (DESIGN.md 4.1)."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import assert_never

from eventbus import codec, deadletter
from eventbus import headers as h
from eventbus.clock import Clock
from eventbus.correlation import Handled, Scope, entered
from eventbus.deadletter import Origin
from eventbus.delivery import (
    Ack,
    DeadLetter,
    Decision,
    Delivery,
    Drop,
    Nak,
    Outcome,
    Park,
    Reason,
)
from eventbus.drivers.base import Driver
from eventbus.envelope import Envelope
from eventbus.errors import (
    CodecError,
    DriverError,
    PayloadTooLargeError,
    SchemaError,
    SettleError,
    UnknownEventError,
)
from eventbus.middleware.base import Context, Emit, Middleware, chain
from eventbus.middleware.timeout import Timeout
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.subject import Subjects
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import (
    ListenerStarted,
    Observer,
    Received,
    Returned,
    Settled,
    Stuck,
)

__all__ = ("Dispatcher", "Wiring")

UNKNOWN_PATIENCE = timedelta(minutes=10)
"""How long an event that isn't declared here waits for a deploy that declares it."""
UNKNOWN_DELAY = 15.0
STAY_DELAY = 5.0
"""Delay before a delivery whose dead letter couldn't be stored is tried again."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the dispatchers of one service share."""

    driver: Driver
    registry: Registry
    subjects: Subjects
    observe: Observer
    clock: Clock
    emit: Emit
    middleware: tuple[Middleware, ...]
    """Around every listener of the service; the first is the outermost."""
    retry: Retry
    """Where a subscription declares none."""
    park_after: float
    chance: Callable[[], float] = field(default=random.random)
    """A number in [0, 1) for jitter."""


@dataclass(slots=True)
class _Run:
    """What is known of one delivery while it is dispatched."""

    delivery: Delivery
    name: str
    started: float
    envelope: Envelope | None = None
    error: Exception | None = None
    duration: float = 0.0


class Dispatcher:
    """Handles the deliveries of one subscription."""

    def __init__(self, subscription: Subscription, wiring: Wiring) -> None:
        self._subscription = subscription
        self._wiring = wiring
        self._retry = subscription.retry or wiring.retry
        layers = (*wiring.middleware, Timeout(subscription.timeout), *subscription.middleware)
        self._chain = chain(layers, self._call)

    async def __call__(self, delivery: Delivery) -> None:
        """Handle and settle one delivery; never raises but for cancellation.

        Cancelled, the delivery goes back to the server at once, and it isn't an attempt.
        """
        wiring, one = self._wiring, self._subscription
        name = wiring.subjects.event_name(delivery.message.subject) or "unknown"
        run = _Run(delivery, name, wiring.clock.monotonic())
        wiring.observe(Received(name, one.service, one.listener, delivery.redelivered))
        try:
            decision = await self._decide(run)
            outcome = await self._settle(run, decision)
        except asyncio.CancelledError:
            await delivery.nak()
            wiring.observe(Returned(name, one.service, one.listener))
            raise
        except Exception as exc:
            # Not settled: its lease runs out and the server hands it out again.
            wiring.observe(Stuck(name, one.service, one.listener, exc))
            return
        wiring.observe(self._settled(run, decision, outcome))

    async def _decide(self, run: _Run) -> Decision:
        early = self._decode(run)
        if early is not None:
            return early
        assert run.envelope is not None, "decoded without an envelope"
        attempt = run.delivery.attempt
        if attempt > self._retry.attempts:
            return DeadLetter(Reason.CRASH, f"no outcome after {attempt - 1} attempts")
        expires = run.envelope.expires
        if expires is not None and self._wiring.clock.now() >= expires:
            return DeadLetter(Reason.EXPIRED, f"expired at {h.render_time(expires)}")
        await self._run(run, run.envelope)
        return self._retry.decide(
            run.error,
            attempt,
            chance=self._wiring.chance(),
            park_after=self._wiring.park_after,
        )

    def _decode(self, run: _Run) -> Decision | None:
        """Fill in the envelope; return a decision where there is none."""
        message, wiring = run.delivery.message, self._wiring
        stored = run.delivery.stored_at
        try:
            run.envelope = codec.decode(
                message,
                run.name,
                wiring.registry,
                received=stored,
                unknown=self._subscription.takes_any,
            )
        except UnknownEventError as exc:
            run.error = exc
            # A rolling deploy: the producer is ahead of us, or this process is the old one.
            if wiring.clock.now() - stored < UNKNOWN_PATIENCE:
                return Nak(UNKNOWN_DELAY)
            return DeadLetter(Reason.UNKNOWN_EVENT, str(exc))
        except (CodecError, SchemaError) as exc:
            run.error = exc
            return DeadLetter(Reason.INVALID, str(exc))
        return None

    async def _run(self, run: _Run, envelope: Envelope) -> None:
        one, wiring = self._subscription, self._wiring
        context = _context(envelope, run.delivery, one, wiring.emit)
        scope = Scope(
            correlation_id=envelope.correlation_id,
            causation_id=envelope.id,
            trace=envelope.trace,
            handled=Handled(envelope.id, one.durable),
        )
        wiring.observe(
            ListenerStarted(
                context.name,
                context.id,
                one.service,
                one.listener,
                context.attempt,
                context.correlation_id,
            )
        )
        started = wiring.clock.monotonic()
        try:
            with entered(scope):
                await self._chain(context)
        except Exception as exc:
            run.error = exc
        except asyncio.CancelledError as exc:
            if _cancelled_from_outside():
                raise
            run.error = RuntimeError(f"listener '{one.listener}' was cancelled by its own code")
            run.error.__cause__ = exc
        finally:
            run.duration = wiring.clock.monotonic() - started

    async def _call(self, context: Context) -> None:
        await self._subscription.handler(context.event, context)

    async def _settle(self, run: _Run, decision: Decision) -> Outcome:
        """Carry out a decision and return how the delivery ended.

        Raises:
            DriverError: The server couldn't be told; it will deliver the message again.
        """
        delivery = run.delivery
        match decision:
            case Ack():
                await delivery.ack()
                return Outcome.OK
            case Drop():
                await delivery.ack()
                return Outcome.DROPPED
            case Nak(delay=delay):
                await delivery.nak(delay)
                return Outcome.RETRY
            case Park(delay=delay):
                await self._park(run, delay)
                return Outcome.PARK
            case DeadLetter():
                await self._bury(run, decision)
                return Outcome.DEAD
        assert_never(decision)

    async def _park(self, run: _Run, delay: float) -> None:
        """Schedule the retry for this listener alone, then acknowledge the original."""
        one, wiring, delivery = self._subscription, self._wiring, run.delivery
        stored_ns = int(delivery.stored_at.timestamp() * 1_000_000) * 1000
        place = f"{one.durable}:{delivery.stream}:{delivery.sequence}:{stored_ns}"
        headers = {
            name: value
            for name, value in delivery.message.headers.items()
            if not name.startswith("nats-") and name != h.ATTEMPT.lower()
        }
        headers[h.ATTEMPT] = str(delivery.attempt)
        retry = replace(
            delivery.message,
            subject=wiring.subjects.retry(one.service, one.listener, run.name),
            headers=headers,
            id=f"park:{place}:{delivery.attempt}",
        )
        holder = wiring.subjects.parked(one.service, one.listener, delivery.sequence)
        at = wiring.clock.now() + timedelta(seconds=delay)
        await wiring.driver.schedule(retry, at=at, holder=holder)
        await delivery.ack()

    async def _bury(self, run: _Run, decision: DeadLetter) -> None:
        """Store the dead letter, then terminate the original; if it can't be, the original stays."""
        one, wiring, delivery = self._subscription, self._wiring, run.delivery
        failure = deadletter.failure_of(
            delivery,
            Origin(one.service, one.listener, wiring.subjects.event(run.name)),
            reason=decision.reason,
            error=run.error or decision.detail,
            now=wiring.clock.now(),
        )
        subject = wiring.subjects.dead_letter(one.service, one.listener, run.name)
        id = deadletter.dead_letter_id(one.durable, delivery)
        letter = deadletter.build(delivery.message, failure, subject=subject, id=id)
        try:
            try:
                await wiring.driver.publish(letter, headroom=0)
            except PayloadTooLargeError:
                small = deadletter.build(
                    delivery.message, failure, subject=subject, id=id, stack=False
                )
                await wiring.driver.publish(small, headroom=0)
        except SettleError:
            raise
        except DriverError:
            await delivery.nak(STAY_DELAY)
            raise
        await delivery.term(f"dead letter: {decision.reason}")

    def _settled(self, run: _Run, decision: Decision, outcome: Outcome) -> Settled:
        one, delivery, envelope = self._subscription, run.delivery, run.envelope
        elapsed = None
        if envelope is not None:
            elapsed = (self._wiring.clock.now() - envelope.time).total_seconds()
        return Settled(
            name=run.name,
            id=envelope.id if envelope else delivery.message.headers.get(h.ID, ""),
            service=one.service,
            listener=one.listener,
            outcome=outcome,
            attempt=delivery.attempt,
            attempts=self._retry.attempts,
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
        )


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _detail(decision: Decision) -> str:
    match decision:
        case DeadLetter(detail=detail):
            return detail
        case Drop(reason=reason):
            return reason
        case _:
            return ""


def _context(
    envelope: Envelope, delivery: Delivery, subscription: Subscription, emit: Emit
) -> Context:
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
        attempt=delivery.attempt,
        listener=subscription.listener,
        service=subscription.service,
        headers=envelope.headers,
        tags=envelope.tags,
        trace=envelope.trace,
        subject=delivery.message.subject,
        stream=delivery.stream,
        sequence=delivery.sequence,
        emit=emit,
    )
