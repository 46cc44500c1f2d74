"""F7: the server, or a worker, stops (SIGSTOP) and goes on later as if nothing had been."""

import asyncio

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.history import Entry, What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.waiting import comes_true

pytestmark = [pytest.mark.faults, pytest.mark.nats]

NOTICED_WITHIN = 6.0


async def test_f07_a_frozen_server_is_noticed_and_nothing_is_lost(
    stage: Stage, nats_server: NatsServer
) -> None:
    mailer = stage.service()
    stage.listen(mailer)

    async def isnt_ready() -> bool:
        return not mailer.status().ready

    async with mailer:
        async with stage.load(mailer) as load:
            await load.more(100)
            nats_server.pause()
            noticed = await comes_true(isnt_ready, NOTICED_WITHIN)
            await asyncio.sleep(1)
            nats_server.resume()
            await load.more(100)
        await stage.calm(mailer)

    await stage.check()
    assert noticed, "nobody noticed that the server was frozen"


@pytest.mark.parametrize("does", ["nothing", "raise"])
async def test_f07_a_worker_that_wakes_up_after_its_lease_settles_nothing(
    stage: Stage, does: str
) -> None:
    step = StepTaken(thread="gray", number=1, seconds=3.0)
    frozen = stage.worker("frozen", ack_wait=3.0, concurrency=1, does=does)
    other = stage.worker("other", ack_wait=3.0, concurrency=1)
    frozen.start()
    await stage.started(1)
    source = stage.service("source")
    async with source:
        await stage.emit(source, step)
        await stage.history.until(lambda: bool(runs(stage)), "the first run")
        frozen.freeze()

        other.start()
        await stage.history.until(lambda: len(runs(stage)) == 2, "a second run")
        frozen.thaw()
        await stage.history.until(lambda: len(ended(stage)) == 2, "both runs end")
        await stage.drained()
        await stage.history.until(lambda: bool(handled(stage)), "the other one settles it")

    await stage.check()
    first, second = runs(stage)
    assert first.process == frozen.pid
    assert second.process == other.pid
    assert [one.process for one in handled(stage)] == [other.pid]


def runs(stage: Stage) -> list[Entry]:
    return stage.history.of(What.BEGUN)


def ended(stage: Stage) -> list[Entry]:
    return stage.history.of(What.EFFECT, What.BROKEN)


def handled(stage: Stage) -> list[Entry]:
    return [one for one in stage.history.of(What.SETTLED) if one.detail == "ok"]
