"""`Ticker`: keeps the next tick of a recurring event waiting on the driver's side."""

from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from eventbus import headers as h
from eventbus.clock import Clock
from eventbus.drivers.base import TopologyChanged
from eventbus.drivers.schedules import Waiting
from eventbus.emission import Emitter
from eventbus.errors import EventBusError, UnsupportedError
from eventbus.ids import derived_id
from eventbus.scheduler.recurring import Recurring
from eventbus.subject import Subjects
from eventbus.telemetry.signals import Observer, TickFailed

__all__ = ("Mark", "Ticker", "tickers")

Job: TypeAlias = Callable[[], Awaitable[None]]
LOOK = 60.0
"""Longest time between two looks, so that what is cancelled or lost is noticed."""
TICK = 0.3
"""How long after its time a tick has fired: the server is late by up to 250 ms."""
LATE = 0.1
"""How soon to look again for one that should have fired."""
PAUSES = (1.0, 5.0, 15.0, 60.0)
"""How long to wait after failures in a row."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What stands in the header of a tick: whose it is."""

    name: str
    since: datetime
    """When the process that declares the rule started: of two rules the newer one holds."""
    rule: str

    def __str__(self) -> str:
        """Return the header's value."""
        return f"{self.name} {h.render_time(self.since)} {self.rule}"

    @classmethod
    def of(cls, waiting: Waiting) -> "Mark | None":
        """Return that of a tick; None where it has none."""
        text = h.unquoted(h.lowered(waiting.message.headers).get(h.TICK.lower(), ""))
        name, _, rest = text.partition(" ")
        since, _, rule = rest.partition(" ")
        time = h.parse_time(since)
        return Mark(name, time, rule) if time is not None else None


class Ticker:
    """Has each tick of one recurring event fire once, however many processes do the same.

    The next tick waits at a holder of its own, where only one can. Whoever first sees it gone puts
    the next one there, under an id that all processes derive alike. So one tick fires while no
    process runs, and those after it are left out. All times are the driver's: the clock of this
    machine may be wrong.
    """

    def __init__(
        self,
        recurring: Recurring,
        emitter: Emitter,
        subjects: Subjects,
        observe: Observer,
        clock: Clock,
    ) -> None:
        service = self._service = emitter.source
        self._recurring = recurring
        self._emitter = emitter
        self._holder = subjects.tick(service, recurring.name)
        self._observe = observe
        self._clock = clock
        self._mark = Mark(recurring.name, clock.now(), str(recurring.rule))

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            UnsupportedError: The driver has no schedules.
        """
        failures = 0
        while True:
            try:
                pause = await self.step()
                failures = 0
            except UnsupportedError:
                raise
            except Exception as exc:  # noqa: BLE001 - the factory's; told, and tried again
                self._observe(TickFailed(self._service, self._recurring.name, exc))
                pause = PAUSES[min(failures, len(PAUSES) - 1)]
                failures += 1
            await self._clock.sleep(pause)

    async def step(self) -> float:
        """See that the next tick waits, and return after how many seconds to look again."""
        schedules = self._emitter.driver.schedules
        now = await schedules.now()
        found = await schedules.read(self._holder)
        if found is not None and not found.is_cancelled:
            if not self._is_outdated(found):
                return self._until(found.at, now)
            await schedules.cancel(found)
            return 0.0
        last = now
        if found is not None and self._is_same_rule(found):
            last = max(now, found.at)  # an operator has cancelled that one
        due = self._recurring.rule.after(last)
        await self._emitter.emit_tick(
            self._recurring.event(due),
            id=derived_id("tick", self._service, self._recurring.name, self._mark.rule, str(due)),
            due=due,
            tick=str(self._mark),
        )
        return self._until(due, now)

    def _until(self, due: datetime, now: datetime) -> float:
        left = (due - now).total_seconds()
        return min(LOOK, left + TICK) if left > -TICK else LATE

    def _is_same_rule(self, found: Waiting) -> bool:
        mark = Mark.of(found)
        return mark is not None and mark.rule == self._mark.rule

    def _is_outdated(self, found: Waiting) -> bool:
        """Tell whether it is of a rule that this process's declaration replaces."""
        mark = Mark.of(found)
        if mark is None:
            return True
        return mark.rule != self._mark.rule and mark.since < self._mark.since


def tickers(
    timetable: Iterable[Recurring],
    emitter: Emitter,
    subjects: Subjects,
    observe: Observer,
    clock: Clock,
) -> tuple[Job, ...]:
    """Return the jobs of all that recurs in a service, and the one that reports what is left."""
    names = frozenset(one.name for one in timetable)

    async def report() -> None:
        await _report_orphans(emitter, subjects, names, observe)

    ticking = (Ticker(one, emitter, subjects, observe, clock).run for one in timetable)
    # Also without any: there may have been some before.
    return (report, *ticking)


async def _report_orphans(
    emitter: Emitter, subjects: Subjects, declared: Collection[str], observe: Observer
) -> None:
    """Tell by signal of each tick of a service that waits and that nobody declares any more.

    Best effort: never raises.
    """
    service = emitter.source
    with suppress(EventBusError):
        async for waiting in emitter.driver.schedules.find(subjects.tick(service, "*")):
            mark = Mark.of(waiting)
            if mark is None or mark.name in declared or waiting.is_cancelled:
                continue
            at = h.render_time(waiting.at)
            observe(
                TopologyChanged(
                    f"recurring event '{mark.name}'",
                    f"nobody declares it any more; it comes a last time at {at}, unless "
                    f"'eventbus schedule cancel {service} {mark.name}' removes it",
                )
            )
