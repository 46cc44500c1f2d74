"""`Timers`: what is due when, by a clock; `Alarm`: the task that waits for the next of them."""

import asyncio
import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import TypeAlias

from eventbus.clock import Clock

__all__ = ("Action", "Alarm", "Timers")

Action: TypeAlias = Callable[[], None]
"""What is done at its time; it must not raise."""


class Timers:
    """Actions in the order in which they are due; those of one time in the order they were set."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Action]] = []
        self._numbers = count()
        self._reached = -math.inf
        self._alarms: list[Action] = []

    @property
    def now(self) -> float:
        """The monotonic time; never before that of the last action."""
        # A clock may wake us by a rounding error too early.
        return max(self.clock.monotonic(), self._reached)

    @property
    def next(self) -> float:
        """When the next action is due; infinite where there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def at(self, due: float, action: Action) -> None:
        """Do something at a monotonic time, once somebody's alarm has come to it."""
        heappush(self._heap, (due, next(self._numbers), action))
        for alarm in list(self._alarms):
            alarm()

    def run(self, until: float) -> None:
        """Do what is due by then."""
        self._reached = max(self._reached, until)
        while self.next <= until:
            _, _, action = heappop(self._heap)
            action()

    def watch(self, alarm: Action) -> None:
        """Call ``alarm`` whenever the next time may have changed."""
        self._alarms.append(alarm)

    def unwatch(self, alarm: Action) -> None:
        """Call it no more."""
        self._alarms.remove(alarm)


class Alarm:
    """Runs timers when their time has come; several may, for one set of timers."""

    def __init__(self, timers: Timers, group: asyncio.TaskGroup) -> None:
        self._timers = timers
        self._group = group
        self._until = math.inf
        self._sleeper: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Run what is due, now and from now on."""
        self._timers.watch(self._set)
        self._set()

    def end(self) -> None:
        """Run nothing any more."""
        self._timers.unwatch(self._set)
        if self._sleeper is not None:
            self._sleeper.cancel()

    def _set(self) -> None:
        due = self._timers.next
        if due >= self._until:
            return
        if self._sleeper is not None:
            self._sleeper.cancel()
        self._until = due
        self._sleeper = self._group.create_task(self._sleep(due))

    async def _sleep(self, due: float) -> None:
        await self._timers.clock.sleep(max(0.0, due - self._timers.clock.monotonic()))
        self._sleeper, self._until = None, math.inf
        self._timers.run(due)
        self._set()
