"""`Flow`: runs many coroutines side by side, in no more tasks than there are that wait."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Generic, TypeAlias, TypeVar

__all__ = ("Flow", "Spawn")

ItemT = TypeVar("ItemT")
Spawn: TypeAlias = Callable[[Coroutine[object, object, None]], asyncio.Task[None]]
"""Begins a task that somebody else awaits; raises RuntimeError where none can begin any more."""


class Flow(Generic[ItemT]):
    """Runs each item that it takes, at once, in the order they came.

    A task runs one item after the other until one has to wait; then another task goes on with
    those behind it. So an item that never waits costs no task, and none waits for another. One
    task stays for what comes next, until `end`.

    ``run`` begins an item in the task that is there, and returns what is left to await in it, at
    once; None where nothing is. It gives each a context of its own.
    """

    def __init__(self, run: Callable[[ItemT], Awaitable[None] | None], spawn: Spawn) -> None:
        self._run = run
        self._spawn = spawn
        self._waiting: deque[ItemT] = deque()
        self._is_beginning = False
        """A task is about to take what waits."""
        self._idle: asyncio.Future[None] | None = None
        """What a task waits for that has nothing to do; there is one at most."""
        self._is_ended = False

    def take(self, item: ItemT) -> None:
        """Run an item, in this turn of the loop or the next; never waits."""
        self._waiting.append(item)
        if not self._is_beginning:
            self._begin()

    async def begun(self) -> None:
        """Wait until every item that was taken has begun."""
        while self._waiting and self._is_beginning:  # noqa: ASYNC110 - a turn of the loop does it
            await asyncio.sleep(0)

    def end(self) -> list[ItemT]:
        """Let tasks end that have nothing to do; return the items that haven't begun and won't."""
        self._is_ended = True
        self._wake()
        items = list(self._waiting)
        self._waiting.clear()
        return items

    def _wake(self) -> bool:
        idle, self._idle = self._idle, None
        if idle is None or idle.done():
            return False
        idle.set_result(None)
        return True

    def _begin(self) -> None:
        self._is_beginning = True
        if self._wake():
            return
        work = self._work()
        try:
            self._spawn(work).add_done_callback(self._ended)
        except RuntimeError:  # the end of all tasks; `end` is for what is left
            self._is_beginning = False
            work.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Go on behind a task that an item has cancelled, or that was before its first step."""
        if self._waiting and (task.cancelled() or not self._is_beginning):
            self._begin()

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "run in a task"
        while True:
            self._is_beginning = False
            while self._waiting and not task.cancelling():
                waiting = self._run(self._waiting.popleft())
                if waiting is None:
                    continue
                if self._waiting and not self._is_beginning:
                    self._begin()
                await waiting
            if self._is_ended or self._idle is not None or task.cancelling():
                return
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
