"""Lanes: one event of a key at a time, by its sequence; different keys side by side.

Pure ordering: it knows neither a server nor a listener. What is run, what is given back and how
tasks begin is handed in.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from eventbus import headers as h
from eventbus.attempts import Known
from eventbus.clock import Clock
from eventbus.delivery import Delivery
from eventbus.settlement import Wait

__all__ = ("GiveBack", "Lanes", "Run", "Spawn")

Run: TypeAlias = Callable[[Delivery, Known], Awaitable[Wait | None]]
"""Runs a delivery and settles it, or says when to run it again; raises only when cancelled."""
GiveBack: TypeAlias = Callable[[Delivery, Known], Coroutine[object, object, None]]
"""Gives a delivery back that isn't running; never raises."""
Spawn: TypeAlias = Callable[[Coroutine[object, object, None]], object]
"""Begins a task that somebody else awaits."""


@dataclass(slots=True)
class _Entry:
    """A delivery that waits in its lane."""

    delivery: Delivery
    era: int
    """How often the lanes had been halted when it came."""
    known: Known = field(default_factory=Known)
    due: float = 0.0
    """Not to be run before, on the monotonic clock."""

    @property
    def sequence(self) -> int:
        return self.delivery.sequence


@dataclass(slots=True)
class _Lane:
    """The events of one key that are in hand, the next one first."""

    key: str
    entries: list[_Entry] = field(default_factory=list[_Entry])
    running: Delivery | None = None
    is_worked: bool = False
    """A task works it."""
    has_begun: bool = False
    """One of its events has been run, so that those behind it were not the first."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def insert(self, entry: _Entry) -> Delivery | None:
        """Put it where its sequence belongs; return the older delivery whose place it takes."""
        self.changed.set()
        place = bisect_left(self.entries, entry.sequence, key=lambda one: one.sequence)
        if place == len(self.entries) or self.entries[place].sequence != entry.sequence:
            self.entries.insert(place, entry)
            return None
        there = self.entries[place]
        older, there.delivery, there.era = there.delivery, entry.delivery, entry.era
        return older


class Lanes:
    """The lanes of one listener: a lane is there while one of its events is in hand.

    They begin halted. While they are, deliveries are taken and nothing begins.
    """

    def __init__(
        self, run: Run, give_back: GiveBack, *, limit: int, clock: Clock, spawn: Spawn
    ) -> None:
        self._run = run
        self._give_back = give_back
        self._clock = clock
        self._spawn = spawn
        self._room = asyncio.Semaphore(limit)
        self._lanes: dict[str, _Lane] = {}
        self._era = 0
        self._is_open = False
        self._is_ended = False

    @property
    def in_hand(self) -> int:
        """How many deliveries there are, running or waiting."""
        lanes = self._lanes.values()
        return sum(len(one.entries) + (one.running is not None) for one in lanes)

    @property
    def keys(self) -> int:
        """How many lanes there are."""
        return len(self._lanes)

    def take(self, delivery: Delivery) -> Delivery | None:
        """Put a delivery into the lane of its key; return the older one that it replaces.

        A server delivers again what it thinks is lost. The older delivery isn't settled any more.
        """
        key = h.ordering_key(delivery.message.headers)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
        older = lane.insert(_Entry(delivery, self._era))
        self._work(lane)
        return older

    def halt(self) -> None:
        """Begin with nothing more; what runs goes on."""
        self._is_open = False
        self._era += 1
        for lane in self._lanes.values():
            lane.changed.set()

    def resume(self) -> None:
        """Go on, with the lowest sequences first."""
        if self._is_ended:
            return
        self._is_open = True
        for lane in sorted(self._lanes.values(), key=_first):
            self._work(lane)

    async def hand_back(self) -> None:
        """Give back what was taken before the last halt and isn't running."""
        leaving: list[_Entry] = []
        for lane in list(self._lanes.values()):
            leaving.extend(one for one in lane.entries if one.era < self._era)
            lane.entries = [one for one in lane.entries if one.era == self._era]
            self._drop_if_empty(lane)
        async with asyncio.TaskGroup() as group:
            for entry in leaving:
                group.create_task(self._give_back(entry.delivery, entry.known))

    async def end(self) -> None:
        """Give back all that isn't running, and later what has to be run again."""
        self._is_ended = True
        self.halt()
        await self.hand_back()

    def _work(self, lane: _Lane) -> None:
        if self._is_open and not lane.is_worked and lane.entries:
            lane.is_worked = True
            self._spawn(self._run_lane(lane))

    async def _run_lane(self, lane: _Lane) -> None:
        try:
            while await self._is_due(lane):
                async with self._room:
                    # It may have been handed back while all places were taken.
                    if self._pause(lane) == 0.0:
                        await self._run_next(lane)
        finally:
            lane.is_worked = False
            self._drop_if_empty(lane)

    async def _is_due(self, lane: _Lane) -> bool:
        """Wait until the lane's next event may run; False where that isn't for it to say."""
        while pause := self._pause(lane):
            lane.changed.clear()
            async with asyncio.TaskGroup() as group:
                ends = {
                    group.create_task(self._clock.sleep(pause)),
                    group.create_task(lane.changed.wait()),
                }
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for one in ends:
                    one.cancel()
        return pause is not None

    def _pause(self, lane: _Lane) -> float | None:
        """Return how long the lane's next event has to wait; None where nothing may begin.

        Nothing may begin behind what isn't ours any more: that comes back, here or elsewhere.
        """
        if not self._is_open or not lane.entries or lane.entries[0].delivery.lost:
            return None
        return max(0.0, lane.entries[0].due - self._clock.monotonic())

    async def _run_next(self, lane: _Lane) -> None:
        entry = lane.entries.pop(0)
        lane.running = entry.delivery
        known = replace(entry.known, behind=lane.has_begun)
        lane.has_begun = True
        try:
            wait = await self._run(entry.delivery, known)
        finally:
            lane.running = None
        if wait is None:
            return
        entry.known = Known(wait.verdict)
        if self._is_ended:
            await self._give_back(entry.delivery, entry.known)
            return
        entry.due = self._clock.monotonic() + wait.delay
        if lane.entries and lane.entries[0].sequence == entry.sequence:
            # It was delivered again while it ran: that delivery is the one to run.
            lane.entries[0].known, lane.entries[0].due = entry.known, entry.due
        else:
            lane.insert(entry)

    def _drop_if_empty(self, lane: _Lane) -> None:
        is_idle = not lane.is_worked and not lane.entries
        if is_idle and self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]


def _first(lane: _Lane) -> int:
    return lane.entries[0].sequence if lane.entries else 0
