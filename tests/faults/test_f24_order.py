"""F24: what works an ordered listener is killed, frozen, cut off, or loses its server.

``EVENTBUS_TEST_SEED`` repeats the choices of a run; a failure names its seed.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.history import What
from tests.faults.harness.proxy import Proxy
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.faults.harness.worker import Worker

pytestmark = [pytest.mark.faults, pytest.mark.nats]

ATTEMPTS = 4
ACK_WAIT = 4.0
"""Longer than the server waits for a pull of the one that works: newer events come before those
that it held."""


class Crew:
    """Three processes with the same ordered listener, of which the server lets one work."""

    def __init__(self, stage: Stage, urls: Sequence[str] = ("", "", "")) -> None:
        self._stage = stage
        self._read = 0
        self._last = 0
        self._done: set[str] = set()
        self.workers = [self._worker(number, url) for number, url in enumerate(urls)]

    def _worker(self, number: int, url: str) -> Worker:
        return self._stage.worker(
            f"w{number}",
            url=url,
            ordered=True,
            concurrency=16,
            ack_wait=ACK_WAIT,
            attempts=ATTEMPTS,
            backoff=0.01,
        )

    async def start(self) -> None:
        """Start them all."""
        for one in self.workers:
            one.start()
        await self._stage.started(len(self.workers))

    def handled(self) -> int:
        """Return how many events had their effect."""
        entries = self._stage.history.entries
        for one in entries[self._read :]:
            if one.what is What.EFFECT:
                self._done.add(one.mark)
                self._last = one.process
        self._read = len(entries)
        return len(self._done)

    async def reach(self, count: int) -> Worker:
        """Wait until so many events had their effect; return whose was the last one."""
        history = self._stage.history
        await history.until(lambda: self.handled() >= count, f"{count} effects", 30)
        return next(one for one in self.workers if one.pid == self._last)


@pytest.fixture
def chance() -> random.Random:
    """Give the choices of a run."""
    seed = os.environ.get("EVENTBUS_TEST_SEED") or str(random.randrange(1_000_000))
    print(f"EVENTBUS_TEST_SEED={seed}")  # noqa: T201 - pytest shows it with a failure
    return random.Random(seed)


@asynccontextmanager
async def emitting(
    stage: Stage, keys: int, steps: range, chance: random.Random
) -> AsyncIterator[None]:
    """Emit steps of all keys side by side, those of one key one after another."""
    source = stage.service("source")

    async def emit() -> None:
        for number in steps:
            await stage.emit(source, *(step(f"k{key}", number, chance) for key in range(keys)))

    async with source, asyncio.TaskGroup() as group:
        group.create_task(emit())
        yield


def step(thread: str, number: int, chance: random.Random) -> StepTaken:
    """Return a step; some fail a few times, and few for good."""
    roll = chance.random()
    if roll > 0.05:
        return StepTaken(thread=thread, number=number)
    times = chance.randint(1, ATTEMPTS - 1) if roll > 0.002 else ATTEMPTS
    return StepTaken(thread=thread, number=number, does="raise", times=times)


async def test_f24_order_by_key_is_kept_while_the_process_that_works_it_is_killed_and_frozen(
    stage: Stage, chance: random.Random
) -> None:
    crew = Crew(stage)
    await crew.start()

    for first in (0, 50, 100):
        ahead = crew.handled() + chance.randrange(200, 2000)
        async with emitting(stage, 50, range(first, first + 50), chance):
            owner = await crew.reach(ahead)
            owner.kill()
            owner.start()
    ahead = crew.handled() + chance.randrange(200, 1000)
    async with emitting(stage, 50, range(150, 200), chance):
        owner = await crew.reach(ahead)
        owner.freeze()
        await crew.reach(ahead + 1000)
        owner.thaw()
    await stage.drained(30)

    await stage.check(ordered=["send"])


async def test_f24_order_by_key_is_kept_while_the_server_is_killed(
    stage: Stage, nats_server: NatsServer, chance: random.Random
) -> None:
    crew = Crew(stage)
    await crew.start()

    for first in (0, 35, 70):
        ahead = crew.handled() + chance.randrange(50, 500)
        async with emitting(stage, 20, range(first, first + 35), chance):
            await crew.reach(ahead)
            nats_server.kill()
            await asyncio.to_thread(nats_server.restart)
    await stage.drained(30)

    await stage.check(ordered=["send"])


async def test_f24_order_by_key_is_kept_while_the_line_of_the_process_that_works_it_breaks(
    stage: Stage, nats_server: NatsServer, chance: random.Random
) -> None:
    async with AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(Proxy(nats_server.url)) for _ in range(3)]
        crew = Crew(stage, [one.url for one in lines])
        await crew.start()

        for first, name in enumerate(("lose_answers", "black_hole", "lose_answers", "reset")):
            ahead = crew.handled() + chance.randrange(50, 1000)
            async with emitting(stage, 50, range(first * 30, first * 30 + 30), chance):
                owner = await crew.reach(ahead)
                line = lines[crew.workers.index(owner)]
                getattr(line, name)()
                await asyncio.sleep(chance.uniform(0.5, 3))
                line.restore()
        await stage.drained(30)

    await stage.check(ordered=["send"])
