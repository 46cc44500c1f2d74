"""Carry out a decision: the one place that calls ack, nak and term (DESIGN.md 4.1)."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeAlias, assert_never

from eventbus import deadletter
from eventbus import headers as h
from eventbus.attempts import Attempts, Verdict
from eventbus.clock import Clock
from eventbus.deadletter import Origin
from eventbus.delivery import Ack, DeadLetter, Decision, Delivery, Drop, Nak, Outcome, Park
from eventbus.drivers.base import Driver
from eventbus.envelope import Envelope
from eventbus.errors import DriverError, PayloadTooLargeError
from eventbus.subject import Subjects
from eventbus.subscription import Subscription

__all__ = ("Run", "Settler")

STAY_DELAY = 5.0
"""Delay before a delivery that couldn't be settled, or its dead letter stored, is tried again."""
RECORD_TIME = 0.5
"""How long a hand-back waits for its record; a stop keeps a second for all of it."""


@dataclass(slots=True)
class Run:
    """What is known of one delivery while it is dispatched."""

    delivery: Delivery
    name: str
    redrive: int = 0
    """How often the event was redriven."""
    envelope: Envelope | None = None
    verdict: Verdict = field(default_factory=lambda: Verdict(attempt=0))
    """Which attempt it is; 0 where the listener was never reached."""
    begun: bool = False
    error: Exception | None = None
    duration: float = 0.0


GaveUp: TypeAlias = Callable[[Run, DeadLetter], Awaitable[None]]
"""Told once the dead letter is stored; raises nothing but for cancellation."""


class Settler:
    """Settles the deliveries of one subscription."""

    def __init__(
        self,
        subscription: Subscription,
        driver: Driver,
        subjects: Subjects,
        clock: Clock,
        attempts: Attempts,
        gave_up: GaveUp,
    ) -> None:
        self._subscription = subscription
        self._driver = driver
        self._subjects = subjects
        self._clock = clock
        self._attempts = attempts
        self._gave_up = gave_up

    async def settle(self, run: Run, decision: Decision) -> Outcome:
        """Carry out a decision and return how the delivery ended.

        Raises:
            DriverError: The server couldn't be told; it will deliver the message again.
        """
        match decision:
            case Ack():
                await run.delivery.ack()
                outcome = Outcome.OK
            case Drop():
                await run.delivery.ack()
                outcome = Outcome.DROPPED
            case Nak(delay=delay):
                await self._retry(run, delay)
                return Outcome.RETRY
            case Park(delay=delay):
                if not await self._is_scheduled(run, delay):
                    # The original waits instead, in a pending place of the consumer.
                    await self._retry(run, delay)
                    return Outcome.RETRY
                await run.delivery.ack()
                outcome = Outcome.PARK
            case DeadLetter():
                await self._bury(run, decision)
                outcome = Outcome.DEAD
            case _:
                assert_never(decision)
        await self._attempts.settled(run.delivery)
        return outcome

    async def hand_back(self, run: Run) -> None:
        """Give a delivery back at a stop: it is neither an attempt nor under suspicion."""
        if run.begun:
            # A server that doesn't answer must not hold up the stop.
            with suppress(TimeoutError):
                async with asyncio.timeout(RECORD_TIME):
                    await self._attempts.returned(run.delivery, run.verdict)
        await self._give_back(run, 0.0)

    async def give_up(self, run: Run) -> None:
        """Let go of a delivery that couldn't be settled; the server hands it out again.

        Its run did end, so the next one is the same attempt again and no suspect; else an event
        whose dead letter can't be stored would be counted as one that crashes.
        """
        if run.verdict.attempt:
            await self._attempts.returned(run.delivery, run.verdict)
        await self._give_back(run, STAY_DELAY)

    async def _give_back(self, run: Run, delay: float) -> None:
        # Where the server can't be told, the lease runs out and it hands the event out again.
        with suppress(DriverError):
            await run.delivery.nak(delay)

    async def _retry(self, run: Run, delay: float) -> None:
        if run.begun:
            await self._attempts.failed(run.delivery, run.verdict)
        else:
            # Not judged yet; what failed before, in a process that knew the event, still counts.
            verdict = await self._attempts.judge(run.delivery)
            await self._attempts.returned(run.delivery, verdict)
        await run.delivery.nak(delay)

    async def _is_scheduled(self, run: Run, delay: float) -> bool:
        """Schedule the retry for this listener alone; the caller then acknowledges the original."""
        if not self._driver.features.schedules:
            return False
        one, delivery = self._subscription, run.delivery
        stored_ns = int(delivery.stored_at.timestamp() * 1_000_000) * 1000
        place = f"{one.durable}:{delivery.stream}:{delivery.sequence}:{stored_ns}"
        headers = h.forwarded(
            delivery.message.headers, without=(h.ATTEMPT.lower(), h.BEGAN.lower())
        )
        headers[h.ATTEMPT] = str(run.verdict.attempt)
        if run.verdict.history.began is not None:
            headers[h.BEGAN] = h.render_time(run.verdict.history.began)
        retry = replace(
            delivery.message,
            subject=self._subjects.retry(one.service, one.listener, run.name),
            headers=headers,
            id=f"park:{place}:{run.verdict.attempt}",
        )
        holder = self._subjects.parked(one.service, one.listener, delivery.sequence)
        at = self._clock.now() + timedelta(seconds=delay)
        try:
            await self._driver.schedule(retry, at=at, holder=holder)
        except DriverError:
            return False
        return True

    async def _bury(self, run: Run, decision: DeadLetter) -> None:
        """Store the dead letter, tell the listener's ``failed``, then terminate the original.

        A crash in between makes it all happen again, the letter excepted: its id is the same.

        Raises:
            DriverError: The letter can't be stored; the original stays.
        """
        one, delivery = self._subscription, run.delivery
        is_known = self._subjects.event_name(delivery.message.subject) is not None
        origin = self._subjects.event(run.name) if is_known else delivery.message.subject
        failure = deadletter.failure_of(
            delivery,
            Origin(one.service, one.listener, origin),
            attempts=run.verdict.attempt if run.begun else max(0, run.verdict.attempt - 1),
            reason=decision.reason,
            error=run.error or decision.detail,
            now=self._clock.now(),
            redrive=run.redrive,
        )
        subject = self._subjects.dead_letter(one.service, one.listener, run.name)
        id = deadletter.dead_letter_id(one.durable, delivery)
        letter = deadletter.build(delivery.message, failure, subject=subject, id=id)
        try:
            await self._driver.publish(letter, headroom=0)
        except PayloadTooLargeError:
            small = deadletter.build(
                delivery.message, failure, subject=subject, id=id, stack=False
            )
            await self._driver.publish(small, headroom=0)
        await self._gave_up(run, decision)
        await delivery.term(f"dead letter: {decision.reason}")
