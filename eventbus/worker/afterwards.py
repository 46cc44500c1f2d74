"""What is to be done after commits that nobody awaits: those of sessions that aren't async."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

__all__ = ("Afterwards",)


class Afterwards:
    """Does what it is given, in order, in a job of the service."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], Awaitable[None]]] = deque()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Take jobs; safe to call from any thread."""
        self._waiting.extend(jobs)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed.set)

    async def run(self) -> None:
        """Do them until cancelled, and then what is still there."""
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await self._empty()
                self._changed.clear()
                if not self._waiting:
                    await self._changed.wait()
        finally:
            await self._empty()

    async def _empty(self) -> None:
        while self._waiting:
            await self._waiting.popleft()()
