"""`Load`: emitters that go on through every fault."""

import asyncio
import time
from collections.abc import Callable
from typing import Self

from eventbus import EmitUnknown, EventService
from tests.faults.harness.history import History, What
from tests.faults.harness.step import StepTaken
from tests.faults.harness.witness import Witness

__all__ = ("Load", "plain_step")

REFUSED_PAUSE = 0.05


def plain_step(thread: str, number: int) -> StepTaken:
    """Return a step that its listener does nothing about."""
    return StepTaken(thread=thread, number=number)


class Load:
    """Some emitters, each with a thread of steps of its own; use it in ``async with``.

    What an emit doesn't know is emitted again, as the same object (P2); after a refusal an
    emitter goes on with its next step.
    """

    def __init__(
        self,
        events: EventService,
        history: History,
        *,
        width: int = 16,
        rate: float = 400.0,
        make: Callable[[str, int], StepTaken] = plain_step,
    ) -> None:
        self._events = events
        self._history = history
        self._witness = Witness(history)
        self._width = width
        self._pause = width / rate
        self._make = make
        self._stopping = asyncio.Event()
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for number in range(self._width):
            self._group.create_task(self._emit(f"t{number}"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._stopping.set()
        await self._group.__aexit__(*exc)  # type: ignore[arg-type]

    async def more(self, count: int, seconds: float = 30) -> None:
        """Wait until so many more emits have returned."""
        wanted = len(self._history.of(What.STORED)) + count
        await self._history.until(
            lambda: len(self._history.of(What.STORED)) >= wanted,
            f"{count} more emits that return",
            seconds,
        )

    async def _emit(self, thread: str) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            begun = time.monotonic()
            await self._persist(self._make(thread, number))
            await asyncio.sleep(max(0.0, begun + self._pause - time.monotonic()))

    async def _persist(self, step: StepTaken) -> None:
        while True:
            try:
                await self._witness.emit(self._events, step)
            except EmitUnknown:
                if self._stopping.is_set():
                    return
            except Exception:  # noqa: BLE001 - it is in the history; a naive bus raises anything
                await asyncio.sleep(REFUSED_PAUSE)
                return
            else:
                return
