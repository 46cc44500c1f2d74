"""F3: a worker's process is killed (kill -9) in the middle of its listeners' runs."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.bank import Bank, service
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.faults.harness.worker import Worker
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats]

KILLS = 24
"""At most, for a slow machine gets little done between two of them."""


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


async def test_f03_with_the_inbox_killed_workers_have_each_effect_once(
    nats_server: NatsServer, database_url: str, tmp_path: Path
) -> None:
    chance = random.Random(33)
    steps = [StepTaken(thread="w", number=n, seconds=0.04) for n in range(200)]
    marks = sorted(one.mark for one in steps)
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        async with service(nats_server.url, database_url, relay=False) as source:
            await source.emit_many(steps)
        kills = 0
        while kills < KILLS and len(await bank.effects()) < len(steps) - 50:
            first, second = await bank.listener(), await bank.listener()
            begun = len(await bank.effects())
            await eventually(partial(has_more_than, bank, begun), state=partial(bank.account, ()))
            await bank.kill_soon(first, chance)
            await bank.kill_soon(second, chance)
            kills += 2
        await bank.listener()
        await bank.handled(marks)
        effects = await bank.effects()

    assert kills >= 10
    assert effects == marks


async def has_more_than(bank: Bank, count: int) -> bool:
    return len(await bank.effects()) > count


async def works(stage: Stage, worker: Worker) -> None:
    """Start the worker's process, and wait until it is in the middle of something."""
    runs = len(stage.history.of(What.BEGUN))
    worker.start()
    await stage.history.until(
        lambda: len(stage.history.of(What.BEGUN)) > runs, "a worker that begins to work", 8
    )
