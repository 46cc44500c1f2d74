"""F1: the server is killed (kill -9) while services emit and listen."""

import asyncio

import pytest

from eventbus.embedded import NatsServer
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
