"""Carry out a decision: the one place that calls ack, nak and term."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeAlias, assert_never

from eventbus import deadletter
from eventbus import headers as h
from eventbus.attempts import Attempts, Known, Verdict
from eventbus.clock import Clock
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
    can_ack_soon,
)
from eventbus.drivers.base import Driver, Receipt
from eventbus.envelope import Envelope, Message
from eventbus.errors import DriverError, PayloadTooLargeError, SettleError
from eventbus.parked import ParkedKeys
from eventbus.subject import Subjects
from eventbus.subscription import Subscription

__all__ = ("Run", "Settler", "Wait")

STAY_DELAY = 5.0
"""Delay before a delivery that couldn't be settled, or its dead letter stored, is tried again."""
OPEN_DELAY = 1.0
"""Delay before an ordered listener whose breaker is open asks it again."""
RECORD_TIME = 0.5
"""How long a hand-back waits for its record; a stop keeps a second for all of it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A delivery stays in hand, unsettled, until it is run again."""

    delay: float
    verdict: Verdict | None = None
    """What it is then; None where that has to be found out."""


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
    alone: bool = False
    """It keeps all other suspects from running until it is settled."""
    begun: bool = False
    early: bool = False
    """It has to wait before its first run, so that none can have crashed."""
    error: Exception | None = None
    duration: float = 0.0
    known: Known | None = None
    """What its lane knows, where order is kept."""
    wait: Wait | None = None
    """Set where it stays in hand."""


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
        self._parked: ParkedKeys | None = None
        if subscription.on_failure == "park_key":
            own = subjects.retry(subscription.service, subscription.listener, "")
            self._parked = ParkedKeys(driver.parked, subscription.durable, own)

    async def settle(self, run: Run, decision: Decision) -> Outcome:
        """Carry out a decision and return how the delivery ended.

        Raises:
            DriverError: The server couldn't be told; it will deliver the message again.
        """
        _check_ours(run.delivery)
        match decision:
            case Ack() | Drop():
                if self._parked is not None:
                    await self._parked.handled(run.delivery)
                await run.delivery.ack()
                outcome = _outcome(decision)
            case Nak(delay=delay) | Park(delay=delay) if self._subscription.ordered:
                await self._wait(run, delay)
                return Outcome.RETRY
            case Nak(delay=delay):
                await self._retry(run, delay)
                return Outcome.RETRY
            case Park(delay=delay):
                if not await self._is_scheduled(run, delay, failed=run.verdict.attempt):
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
        await self._attempts.settled(run.delivery, run.verdict)
        return outcome

    def can_ack_soon(self, run: Run, decision: Decision) -> bool:
        """Tell whether all that is left to do is to acknowledge, and nobody need wait for that."""
        return (
            isinstance(decision, Ack)
            and run.delivery.deliveries == 1
            and not run.verdict.history.failed
            and self._parked is None
            and can_ack_soon(run.delivery)
        )

    def ack_soon(self, run: Run, told: Callable[[bool], None]) -> None:
        """Acknowledge; ``told`` gets False where `settle` has to be awaited instead."""
        assert can_ack_soon(run.delivery), "asked before"
        run.delivery.ack_soon(told)

    async def hand_back(self, run: Run, delay: float = 0.0) -> None:
        """Give a delivery back, at a stop or where a breaker is open.

        It is neither an attempt nor under suspicion, where it had begun or is too early.
        """
        if run.begun or run.early:
            # A server that doesn't answer must not hold up the stop.
            with suppress(TimeoutError):
                async with asyncio.timeout(RECORD_TIME):
                    await self._attempts.returned(run.delivery, run.verdict)
        await self._give_back(run, delay)

    async def step_back(self, run: Run, delay: float, *, park: bool = False) -> None:
        """Let go of a delivery that may not run now, without an attempt.

        An ordered listener's waits in hand. With ``park`` it waits without a pending place of the
        consumer, where the driver can do that.
        """
        if self._subscription.ordered:
            if run.begun:
                await self._attempts.returned(run.delivery, run.verdict)
            run.wait = Wait(delay or OPEN_DELAY, replace(run.verdict, suspect=False))
        elif park and await self._is_scheduled(run, delay, failed=run.verdict.attempt - 1):
            await run.delivery.ack()
            await self._attempts.settled(run.delivery, run.verdict)
        else:
            await self.hand_back(run, delay)

    async def return_waiting(self, delivery: Delivery, known: Known) -> None:
        """Give back what waited in hand for its run; one under suspicion stays so. Never raises."""
        run = Run(delivery, "", known=known)
        try:
            with suppress(TimeoutError, DriverError):
                async with asyncio.timeout(RECORD_TIME):
                    run.verdict = await self._attempts.judge(delivery, known)
                    # What isn't ours any more, somebody else counts by now.
                    if not run.verdict.suspect and not delivery.lost:
                        await self._attempts.returned(delivery, run.verdict)
        finally:
            await self._give_back(run, 0.0)

    @property
    def parks_keys(self) -> bool:
        """Whether a key may be set aside, so that `problem` has to be asked."""
        return self._parked is not None

    async def problem(self, delivery: Delivery) -> str:
        """Return why a delivery must not be handled, empty where it may.

        Raises:
            DriverError: That isn't known now.
        """
        return "" if self._parked is None else await self._parked.problem(delivery)

    def renew(self) -> None:
        """Look again what is parked."""
        if self._parked is not None:
            self._parked.renew()

    async def give_up(self, run: Run, error: Exception) -> None:
        """Let go of a delivery that couldn't be settled; the server hands it out again.

        Its run did end, so the next one is the same attempt again and no suspect; else an event
        whose dead letter can't be stored would be counted as one that crashes. That of an ordered
        listener stays in hand instead: none of its key may come before it. What outlived its lease
        leaves no record, so that a listener that always blocks for longer is found as a crash is.
        """
        if self._subscription.ordered and not isinstance(error, SettleError):
            again = run.verdict if run.verdict.attempt else (run.known or Known()).verdict
            run.wait = Wait(STAY_DELAY, again and replace(again, suspect=False))
            return
        if run.verdict.attempt and not run.delivery.lost:
            await self._attempts.returned(run.delivery, run.verdict)
        await self._give_back(run, STAY_DELAY)

    async def _give_back(self, run: Run, delay: float) -> None:
        # Where the server can't be told, the lease runs out and it hands the event out again.
        with suppress(DriverError):
            await run.delivery.nak(delay)

    async def _wait(self, run: Run, delay: float) -> None:
        """Keep it in hand until its next run: order is kept by nobody's coming before it."""
        verdict = None if run.known is None else run.known.verdict
        if run.begun:
            verdict = await self._attempts.waits(run.delivery, run.verdict)
        run.wait = Wait(delay, verdict)

    async def _retry(self, run: Run, delay: float) -> None:
        if run.begun:
            await self._attempts.failed(run.delivery, run.verdict)
        else:
            # Not judged yet; what failed before, in a process that knew the event, still counts.
            verdict = await self._attempts.judge(run.delivery)
            await self._attempts.returned(run.delivery, verdict)
        await run.delivery.nak(delay)

    async def _is_scheduled(self, run: Run, delay: float, *, failed: int) -> bool:
        """Schedule it for this listener alone; the caller then acknowledges the original.

        ``failed`` is how many attempts have failed by then.
        """
        # What is parked comes back to all of the listener's durables, and these are not alone.
        if not self._driver.features.schedules or self._subscription.instance:
            return False
        one, delivery = self._subscription, run.delivery
        stored_ns = int(delivery.stored_at.timestamp() * 1_000_000) * 1000
        place = f"{one.durable}:{delivery.stream}:{delivery.sequence}:{stored_ns}"
        headers = h.forwarded(
            delivery.message.headers,
            without=(h.ATTEMPT.lower(), h.BEGAN.lower(), h.RAISED.lower()),
        )
        headers[h.ATTEMPT] = str(failed)
        if run.verdict.history.began is not None:
            headers[h.BEGAN] = h.render_time(run.verdict.history.began)
        if run.verdict.history.raised:
            headers[h.RAISED] = str(run.verdict.history.raised)
        retry = replace(
            delivery.message,
            subject=self._subjects.retry(one.service, one.listener, run.name),
            headers=headers,
            id=f"park:{place}:{failed}",
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
        # Processes that each have the event, and all fail on it, leave one letter.
        id = deadletter.dead_letter_id(one.durable if one.is_replay else one.group, delivery)
        letter = deadletter.build(delivery.message, failure, subject=subject, id=id)
        small = deadletter.build(delivery.message, failure, subject=subject, id=id, stack=False)
        stored = await self._keep(letter, small, deadletter.without_body(small))
        if self._parked is not None:
            await self._parked.buried(delivery, decision.reason, stored.sequence)
        await self._gave_up(run, decision)
        _check_ours(delivery)
        await delivery.term(f"dead letter: {decision.reason}")

    async def _keep(self, *letters: Message) -> Receipt:
        """Store the first of the letters that the server takes; each is smaller than the last.

        Raises:
            DriverError: None can be stored.
        """
        for letter in letters[:-1]:
            with suppress(PayloadTooLargeError):
                return await self._driver.publish(letter, headroom=0)
        return await self._driver.publish(letters[-1], headroom=0)


def _outcome(decision: Ack | Drop) -> Outcome:
    if isinstance(decision, Ack):
        return Outcome.OK
    return Outcome.DUPLICATE if decision.duplicate else Outcome.DROPPED


def _check_ours(delivery: Delivery) -> None:
    """Refuse to settle what is somebody else's by now: theirs is the outcome that counts.

    Raises:
        SettleError: It isn't ours any more.
    """
    if delivery.lost:
        raise SettleError(
            f"'{delivery.message.subject}' {delivery.stream}:{delivery.sequence} isn't ours any "
            "more: its lease ended, or it was delivered again; whoever has it settles it"
        )
