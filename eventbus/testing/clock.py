"""`VirtualClock`: time that stands still until a test moves it."""

import asyncio
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import cast

__all__ = ("VirtualClock", "settle")

START = datetime(2026, 1, 1, tzinfo=UTC)
MOST_TURNS = 10_000
BLIND_TURNS = 200
"""Turns on an event loop that doesn't show whether somebody is ready."""


class VirtualClock:
    """A clock for `EventService`, `MemoryBroker` and whatever else takes a `Clock`.

    ::

        clock = VirtualClock()
        broker = MemoryBroker(clock)
        async with EventService("mailer", driver=MemoryDriver(broker), clock=clock) as events:
            await events.emit(...)
            await clock.advance(minutes=10)

    What waits on it wakes in the order of its time, each with the clock at exactly that time, and
    what it does then is done before the next one wakes.
    """

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved so far; without a time to wait, give others a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._sleepers, (self._elapsed + seconds, next(self._numbers), woken))
        await woken

    async def advance(
        self, seconds: float = 0.0, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
    ) -> None:
        """Move on, and return once all that is due by then has happened.

        Work in threads or on sockets isn't waited for.
        """
        delta = timedelta(seconds=seconds, minutes=minutes, hours=hours, days=days)
        target = self._elapsed + delta.total_seconds()
        await settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, woken = heappop(self._sleepers)
            if woken.done():  # its sleep was cancelled
                continue
            self._elapsed = max(self._elapsed, due)
            woken.set_result(None)
            await settle()
        self._elapsed = max(self._elapsed, target)
        await settle()

    async def settle(self) -> None:
        """Return once nothing can go on without time, threads or sockets; time stands still."""
        await settle()


async def settle() -> None:
    """Return once nothing on this event loop can go on without time, threads or sockets."""
    # asyncio has no public way to ask for this; a loop without it gets many turns instead.
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    for _ in range(BLIND_TURNS if ready is None else MOST_TURNS):
        await asyncio.sleep(0)
        if ready is not None and not len(cast("list[object]", ready)):
            return
