"""F7: the server, or a worker, stops (SIGSTOP) and goes on later as if nothing had been."""

import asyncio
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.bank import Bank, in_order, service
from tests.faults.harness.history import Entry, What
from tests.faults.harness.pace import pace
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.waiting import comes_true

pytestmark = [pytest.mark.faults, pytest.mark.nats]

NOTICED_WITHIN = 6.0
FROZEN = 2.5
"""Longer than the lease of a listener in the bank."""
LOSES_LANES_AFTER = 2.0
"""Seconds after which a frozen relay loses its lanes; one that lives moves a batch in less."""


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


async def test_f07_listeners_that_are_frozen_in_their_transaction_have_each_effect_once(
    nats_server: NatsServer, database_url: str, tmp_path: Path
) -> None:
    steps = [StepTaken(thread="gray", number=n, seconds=0.3) for n in range(40)]
    marks = sorted(one.mark for one in steps)
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        async with service(nats_server.url, database_url, relay=False) as source:
            await source.emit_many(steps)
        listeners = [await bank.listener(), await bank.listener()]
        for process in listeners:
            await bank.begins(process)
            bank.freeze(process)
            await asyncio.sleep(FROZEN)  # the other one gets what it has in hand
            bank.thaw(process)
        await bank.handled(marks)
        effects = await bank.effects()

    assert effects == marks


async def test_f07_what_a_relay_does_after_it_was_frozen_changes_neither_order_nor_number(
    nats_server: NatsServer, database_url: str, tmp_path: Path
) -> None:
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        lease = LOSES_LANES_AFTER * pace()
        relays = [await bank.relay(frozen=lease), await bank.relay(frozen=lease)]
        for relay in relays:
            writers = [await bank.writer(), await bank.writer()]
            await bank.relays(len(await bank.gone()) + 20)
            bank.freeze(relay)
            await asyncio.sleep(FROZEN)
            for writer in writers:
                bank.kill(writer)
            if database_url.startswith("postgresql"):
                await bank.relayed()  # by the other one; with SQLite a frozen one is waited for
            bank.thaw(relay)
        committed, stored = await bank.settled()

    assert sorted(stored) == committed
    assert in_order(stored)
