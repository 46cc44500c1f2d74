"""F3: a worker's process is killed (kill -9) in the middle of its listeners' runs."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.faults.harness.worker import Worker

pytestmark = [pytest.mark.faults, pytest.mark.nats]


@asynccontextmanager
async def backlog(stage: Stage, count: int) -> AsyncIterator[None]:
    """Have steps waiting for a listener that nobody works yet."""
    source = stage.service("source")
    async with source:
        steps = [StepTaken(thread="w", number=n, seconds=0.05) for n in range(count)]
        await stage.emit(source, *steps)
        yield


async def test_f03_ten_killed_workers_lose_nothing_and_blame_no_event(stage: Stage) -> None:
    chance = random.Random(3)
    worker = stage.worker(concurrency=8, ack_wait=1.0)
    worker.start()  # now its durable is there, and keeps for it what is emitted
    await stage.started(1)
    worker.kill()

    async with backlog(stage, 400):
        for _ in range(10):
            await works(stage, worker)
            await asyncio.sleep(chance.uniform(0.05, 0.3))
            worker.kill()
        await works(stage, worker)
        await stage.drained()

    await stage.check()
    assert await stage.ground.letters() == []


async def works(stage: Stage, worker: Worker) -> None:
    """Start the worker's process, and wait until it is in the middle of something."""
    runs = len(stage.history.of(What.BEGUN))
    worker.start()
    await stage.history.until(
        lambda: len(stage.history.of(What.BEGUN)) > runs, "a worker that begins to work", 8
    )
