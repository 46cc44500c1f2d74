"""Processes whose atomic listener makes two events of one, which can be killed at any point."""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from eventbus import Context, Event, EventService, Retry
from eventbus.settings import Settings
from tests.faults.harness.forking import Forker, fork_what_is_ordered
from tests.faults.harness.ground import Ground
from tests.faults.harness.step import StepTaken
from tests.waiting import eventually

__all__ = ("Mill",)

DURABLE = "mill__grind"
PATIENCE = 60.0


class GrainMilled(Event, name="grain.milled", key="of"):
    """One of the two events that a step becomes."""

    of: str
    half: int
    run: str
    """Of another run it is another event: no id tells that the step was ground before."""


def service(server: str) -> EventService:
    """Return the service that every process is."""
    settings = Settings(nats_url=server, emit_timeout=3.0, publish_timeout=0.5, grace=5.0)
    events = EventService("mill", settings=settings)

    # Whoever is killed in the middle of a run leaves a crash, and no event is to be given up.
    @events.subscribe(
        StepTaken, atomic=True, ack_wait=1, concurrency=4, start="all", retry=Retry(attempts=1000)
    )
    async def grind(event: StepTaken, context: Context) -> None:
        run = uuid4().hex
        for half in range(2):
            await context.emit(GrainMilled(of=event.mark, half=half, run=run))
            await asyncio.sleep(event.seconds / 2)

    return events


class Mill:
    """Forks workers, kills them, and counts what they have stored."""

    def __init__(self, server: str, folder: Path) -> None:
        self._server = server
        self._ground = Ground(server)
        self._forker = Forker("tests.faults.harness.mill", folder / "mill.log")

    @classmethod
    @asynccontextmanager
    async def open(cls, server: str, folder: Path) -> AsyncIterator["Mill"]:
        """Give a mill, and end its processes."""
        mill = cls(server, folder)
        try:
            yield mill
        finally:
            await mill.close()

    async def worker(self) -> int:
        """Start a process; return its number."""
        return await self._forker.fork(self._server)

    async def kill_soon(self, process: int, chance: random.Random) -> None:
        """End a process as a crash would, at a random point of its work."""
        await asyncio.sleep(chance.uniform(0.0, 0.2))
        os.kill(process, signal.SIGKILL)

    async def stored(self) -> Counter[tuple[str, int]]:
        """Return how often each of what steps became is in the stream."""
        found = await self._ground.messages("events.grain.>", "EVENTS")
        grains = [GrainMilled.model_validate_json(one.data) for one in found]
        return Counter((one.of, one.half) for one in grains)

    async def grinds(self, more: int) -> None:
        """Wait until so much more is stored."""
        before = (await self.stored()).total()

        async def has() -> bool:
            return (await self.stored()).total() >= before + more

        await eventually(has, PATIENCE, state=self.stored)

    async def done(self, grains: int) -> None:
        """Wait until so much is stored, and every step is acknowledged, by whomever."""

        async def is_done() -> bool:
            if await self._ground.backlog(DURABLE):
                return False
            return (await self.stored()).total() >= grains

        await eventually(is_done, PATIENCE, state=self.stored)

    async def close(self) -> None:
        """End all processes."""
        await self._forker.close()


def _grind(order: str) -> None:
    asyncio.run(service(json.loads(order)).run())


if __name__ == "__main__":
    fork_what_is_ordered(_grind)
