"""Processes whose atomic listener makes two events of one, which can be killed at any point.

``python -m tests.faults.harness.mill`` is the process that forks them: so a new one is there in
some milliseconds, and many can be killed.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from eventbus import Context, Event, EventService, Retry
from eventbus.settings import Settings
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
        self._log = (folder / "mill.log").open("ab")
        self._forker = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.harness.mill"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, server: str, folder: Path) -> AsyncIterator["Mill"]:
        """Give a mill, and end its processes."""
        mill = cls(server, folder)
        try:
            yield mill
        finally:
            await asyncio.to_thread(mill.close)

    async def worker(self) -> int:
        """Start a process; return its number."""
        return await asyncio.to_thread(self._fork)

    def _fork(self) -> int:
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        self._forker.stdin.write(f"{json.dumps(self._server)}\n")
        self._forker.stdin.flush()
        return int(self._forker.stdout.readline())

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

    def close(self) -> None:
        """End all processes."""
        self._forker.communicate()
        self._log.close()


def _main() -> None:
    """Fork a worker for each line of standard input; when it closes, kill what still lives."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    forked: list[int] = []
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                asyncio.run(service(json.loads(line)).run())
            finally:
                os._exit(1)
        forked.append(process)
        sys.stdout.write(f"{process}\n")
        sys.stdout.flush()
    for process in forked:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    _main()
