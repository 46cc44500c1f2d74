"""`Slots`: places that several listeners share, given to those who wait by their weight.

Each listener pays for a place with the reciprocal of its weight, and the one that has paid least
is next. So a heavy one gets more places than a light one while both wait, and none waits for ever.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from eventbus.event import Priority

__all__ = ("WEIGHTS", "Entrance", "Slots")

T = TypeVar("T")

WEIGHTS: Mapping[Priority, int] = {"high": 16, "normal": 4, "low": 1}
"""How many places a listener gets while others that wait, too, get theirs."""


@dataclass(slots=True)
class _Queue:
    weight: int
    paid: float = 0.0
    waiting: deque[asyncio.Future[bool]] = field(default_factory=deque[asyncio.Future[bool]])


class Slots:
    """So many places."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._queues: dict[str, _Queue] = {}
        self._level = 0.0
        """What the last one that got a place had paid before."""
        self._is_closed = False

    async def take(self, who: str, weight: int) -> bool:
        """Wait for a place; False where they are closed. Cancelled, it takes none."""
        if self._is_closed:
            return False
        queue = self._queues.setdefault(who, _Queue(weight))
        if not queue.waiting:
            # Who comes back after a pause has saved nothing.
            queue.paid = max(queue.paid, self._level)
        place: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queue.waiting.append(place)
        self._give()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.result():
                self.give_back()
            elif place in queue.waiting:  # else it was passed over before this was told
                queue.waiting.remove(place)
            raise

    def give_back(self) -> None:
        """Return a place."""
        self._free += 1
        self._give()

    def close(self) -> None:
        """Let nobody take a place any more, also who waits now."""
        self._is_closed = True
        for queue in self._queues.values():
            while queue.waiting:
                _answer(queue.waiting.popleft(), given=False)

    def _give(self) -> None:
        while self._free:
            waiting = [one for one in self._queues.values() if one.waiting]
            if not waiting:
                return
            queue = min(waiting, key=lambda one: one.paid)
            self._level = queue.paid
            queue.paid += 1 / queue.weight
            if _answer(queue.waiting.popleft(), given=True):
                self._free -= 1


def _answer(place: asyncio.Future[bool], *, given: bool) -> bool:
    if place.done():  # cancelled, and not told yet
        return False
    place.set_result(given)
    return True


@dataclass(frozen=True, slots=True)
class Entrance:
    """What one listener has to pass before it runs; nothing in most processes."""

    who: str
    weight: int
    slots: Sequence[Slots] = ()

    @asynccontextmanager
    async def passed(self) -> AsyncGenerator[bool]:
        """Wait for a place of each, and keep them for a block; False where one is closed."""
        taken: list[Slots] = []
        try:
            is_in = True
            for one in self.slots:
                is_in = await one.take(self.who, self.weight)
                if not is_in:
                    break
                taken.append(one)
            yield is_in
        finally:
            for one in reversed(taken):
                one.give_back()

    async def through(
        self, run: Callable[[], Awaitable[T]], back: Callable[[], Awaitable[object]]
    ) -> T | None:
        """Run it once there are places; what never gets them goes back."""
        is_in = False
        try:
            async with self.passed() as is_in:
                return await run() if is_in else None
        finally:
            if not is_in:
                await back()
