"""F1: the server is killed (kill -9) while services emit and listen."""

import asyncio
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.bank import Bank
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.nats]


async def test_f01_four_kills_of_the_server_lose_nothing_and_store_nothing_twice(
    stage: Stage, nats_server: NatsServer
) -> None:
    mailer = stage.service()
    stage.listen(mailer, concurrency=16)

    async with mailer:
        async with stage.load(mailer, width=32) as load:
            for _ in range(4):
                await load.more(150)
                nats_server.kill()
                await asyncio.to_thread(nats_server.restart)
            await load.more(150)
        await stage.calm(mailer)

    stage.took("without an emit that returns", stage.history.longest_gap(), 5)
    await stage.check()
    assert stage.history.of(What.REFUSED) == []


async def test_f01_what_is_committed_has_one_effect_each_whenever_the_server_dies(
    nats_server: NatsServer, database_url: str, tmp_path: Path
) -> None:
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        await bank.relay()
        await bank.listener()
        writer = await bank.writer(pause=0.02)
        for _ in range(3):
            await bank.takes(20)
            nats_server.kill()
            await asyncio.to_thread(nats_server.restart)
        await bank.takes(20)
        bank.kill(writer)
        committed, stored = await bank.settled()
        await bank.handled(committed)
        effects = await bank.effects()

    assert sorted(stored) == committed
    assert effects == committed
