"""Time as a dependency: what needs to wait or to know the time takes a `Clock`."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

__all__ = ("Clock", "SystemClock", "time_of")


class Clock(Protocol):
    """Where the bus gets its time from; tests pass one that they can move."""

    def now(self) -> datetime:
        """Return the wall clock time, aware, in UTC; it may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancelling it is safe."""
        ...


def time_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return what tells the time of a loop; for asyncio's own loops, without a call in between."""
    if type(loop).time is asyncio.BaseEventLoop.time:
        return time.monotonic
    return loop.time


class SystemClock:
    """The clock of the machine."""

    # Without a function of ours around them: an emit asks several times.
    now = staticmethod(partial(datetime.now, UTC))  # noqa: TID251 - this is the clock
    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)
