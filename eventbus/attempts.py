"""Which attempt a delivery is, and whether it is suspected of having crashed its process.

The server's delivery count isn't an attempt count: it restarts when an event was parked, and it
counts hand-backs and the neighbours of a crash. So failures are recorded, and only then
(docs/adr/0004-attempts.md); a driver keeps the records.
"""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from eventbus import headers as h
from eventbus.delivery import Delivery
from eventbus.errors import DriverError
from eventbus.record import quick

__all__ = ("FIRST", "AttemptLog", "Attempts", "History", "Known", "Verdict", "judge")


@quick
@dataclass(frozen=True, slots=True)
class History:
    """What is recorded of the earlier runs of one stored event, for one durable."""

    failed: int = 0
    """Runs that failed or crashed."""
    settled: int = 0
    """The delivery count of the last run that left an outcome, a hand-back included."""
    started: int = 0
    """The delivery count of the last run of a suspect."""
    began: datetime | None = field(default=None, compare=False)
    """When the first attempt began; None where no attempt is recorded."""
    raised: int = field(default=0, compare=False)
    """How many of the failed runs ended with an exception: no signal, no crash."""

    def after_failure(self, deliveries: int) -> "History":
        """Return the history once this delivery has failed."""
        return replace(self, failed=self.failed + 1, settled=deliveries)

    def after_return(self, deliveries: int) -> "History":
        """Return the history once this delivery was handed back: no attempt, no suspicion."""
        return replace(self, settled=deliveries)

    def after_wait(self, deliveries: int) -> "History":
        """Return the history once this delivery has failed and waits in hand for its next run.

        If the process dies before that run has an outcome, the event is a suspect.
        """
        return replace(self, failed=self.failed + 1, settled=deliveries - 1, started=0)

    def after_start(self, deliveries: int) -> "History":
        """Return the history once the run of a suspect begins."""
        return replace(self, started=deliveries)


@quick
@dataclass(frozen=True, slots=True)
class Verdict:
    """What a delivery is."""

    attempt: int
    """Which run of the listener it will be, from 1."""
    suspect: bool = False
    """Its last run left no outcome: run it alone, with a mark before."""
    history: History = field(default_factory=History)
    """The history with a crash counted, where there was one."""

    def running(self, now: datetime) -> "Verdict":
        """Return the verdict once its run begins; the first attempt's beginning is kept."""
        if self.history.began is not None:
            return self
        if self is FIRST:
            return Verdict(1, False, History(began=now))
        return replace(self, history=replace(self.history, began=now))

    def raised(self) -> "Verdict":
        """Return the verdict once its run has ended with an exception."""
        return replace(self, history=replace(self.history, raised=self.history.raised + 1))


@quick
@dataclass(frozen=True, slots=True)
class Known:
    """What the lane of an ordered listener knows of a delivery before it is run."""

    verdict: Verdict | None = None
    """What it is, where its last run failed in this process."""
    behind: bool = False
    """It waited behind another one of its key, so no process can have died of it."""


def judge(history: History, *, deliveries: int, parked: int = 0, behind: bool = False) -> Verdict:
    """Return what a delivery is, by its history.

    A run that left no outcome makes the delivery a suspect. A mark without an outcome is a crash
    and counts as an attempt, so that the event which kills the process is found, and those that
    ran beside it are not blamed.

    Args:
        history: What is recorded; an empty one where nothing is.
        deliveries: How often the server has handed it out, this time included.
        parked: Attempts before it was parked, as its header says.
        behind: It was never run before what stood before it was settled.
    """
    suspect = deliveries > 1 and history.settled < deliveries - 1
    if suspect and history.started > history.settled:
        history = replace(history, failed=history.failed + 1, settled=history.started)
    elif behind:
        suspect = False
    return Verdict(parked + history.failed + 1, suspect, history)


FIRST = Verdict(attempt=1)
"""What a delivery is that nobody had before."""


class AttemptLog(Protocol):
    """Keeps histories where every process of a service sees them."""

    async def read(self, place: str) -> History:
        """Return what is recorded; an empty history where nothing is.

        Raises:
            DriverError: It can't be read now.
        """
        ...

    async def write(self, place: str, history: History) -> None:
        """Record it, confirmed.

        Raises:
            DriverError: It may not be recorded.
        """
        ...

    async def forget(self, place: str) -> None:
        """Drop the record: the event is settled for good. Never raises."""
        ...


class Attempts:
    """Counts the attempts of one durable's deliveries; writes nothing while all goes well."""

    def __init__(self, log: AttemptLog, durable: str, retry_prefix: str) -> None:
        self._log = log
        self._durable = durable
        self._retry_prefix = retry_prefix

    async def judge(self, delivery: Delivery, known: Known | None = None) -> Verdict:
        """Return what a delivery is; asks the log only where it was handed out before.

        Raises:
            DriverError: The log can't be read now.
        """
        if known is None:
            if delivery.deliveries == 1 and not self._came_back(delivery):
                return FIRST
            known = Known()
        if known.verdict is not None:
            return known.verdict
        history = History()
        if delivery.deliveries > 1:
            history = await self._log.read(self._place(delivery))
        began = self._header(delivery, h.BEGAN)
        if began and history.began is None:
            history = replace(history, began=h.parse_time(began))
        parked = _count(self._header(delivery, h.ATTEMPT))
        raised = _count(self._header(delivery, h.RAISED))
        if raised and not history.raised:
            history = replace(history, raised=raised)
        return judge(history, deliveries=delivery.deliveries, parked=parked, behind=known.behind)

    def redrive(self, delivery: Delivery) -> int:
        """Return how often the event was redriven, 0 where it comes as it was emitted."""
        return _count(self._header(delivery, h.REDRIVE))

    async def started(self, delivery: Delivery, verdict: Verdict) -> None:
        """Mark that the run of a suspect begins.

        Raises:
            DriverError: It may not be marked; the suspect must not run.
        """
        history = verdict.history.after_start(delivery.deliveries)
        await self._log.write(self._place(delivery), history)

    async def failed(self, delivery: Delivery, verdict: Verdict) -> None:
        """Record a failed attempt; best effort, an unrecorded one makes a suspect."""
        await self._record(delivery, verdict.history.after_failure(delivery.deliveries))

    async def waits(self, delivery: Delivery, verdict: Verdict) -> Verdict:
        """Record a failed attempt of what stays in hand, best effort, and return what comes next.

        Another process goes on counting from there if this one doesn't.
        """
        history = verdict.history.after_wait(delivery.deliveries)
        await self._record(delivery, history)
        return Verdict(verdict.attempt + 1, history=history)

    async def returned(self, delivery: Delivery, verdict: Verdict) -> None:
        """Record a hand-back, which is no attempt; best effort."""
        await self._record(delivery, verdict.history.after_return(delivery.deliveries))

    async def settled(self, delivery: Delivery, verdict: Verdict) -> None:
        """Forget a delivery that is settled for good."""
        if delivery.deliveries > 1 or verdict.history.failed:
            await self._log.forget(self._place(delivery))

    async def _record(self, delivery: Delivery, history: History) -> None:
        with suppress(DriverError):
            await self._log.write(self._place(delivery), history)

    def _place(self, delivery: Delivery) -> str:
        return f"{self._durable}.{delivery.stream}.{delivery.sequence}"

    def _came_back(self, delivery: Delivery) -> bool:
        return delivery.message.subject.startswith(self._retry_prefix)

    def _header(self, delivery: Delivery, name: str) -> str:
        """Return a header of what came back to this listener alone; an emitter may not say so."""
        if not self._came_back(delivery):
            return ""
        return delivery.message.headers.get(name.lower(), "")


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0
