"""F4: who writes to the outbox, and who relays it, is killed (kill -9) at any point."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.bank import Bank, in_order

pytestmark = [pytest.mark.faults, pytest.mark.nats]


@pytest.fixture
async def bank(nats_server: NatsServer, database_url: str, tmp_path: Path) -> AsyncIterator[Bank]:
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        yield bank


async def test_f04_what_was_committed_is_stored_exactly_whoever_dies(
    bank: Bank, nats_server: NatsServer
) -> None:
    chance = random.Random(4)
    relays = [await bank.relay(), await bank.relay()]
    for round_ in range(20):
        writer = await bank.writer()
        await bank.books()
        await bank.kill_soon(writer, chance)
        if round_ % 2:
            await bank.kill_soon(relays.pop(0), chance)
            relays.append(await bank.relay())
    committed, found = await bank.settled()
    assert len(committed) >= 20
    assert sorted(found) == committed
    assert in_order(found)


async def test_f04_the_server_dies_under_writers_and_relays(
    bank: Bank, nats_server: NatsServer
) -> None:
    chance = random.Random(44)
    relays = [await bank.relay(), await bank.relay()]
    writer = await bank.writer()
    for _ in range(4):
        await bank.books(20)
        await bank.kill_soon(relays.pop(0), chance)
        nats_server.kill()
        relays.append(await bank.relay())
        nats_server.restart()
    await bank.kill_soon(writer, chance)
    committed, found = await bank.settled()
    assert sorted(found) == committed
    assert in_order(found)
