"""F4: who writes to the outbox, and who relays it, is killed (kill -9) at any point."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.bank import Bank
from tests.faults.harness.ground import Ground
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats]


@pytest.fixture
async def bank(nats_server: NatsServer, database_url: str, tmp_path: Path) -> AsyncIterator[Bank]:
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        yield bank


async def stored(server: NatsServer) -> list[str]:
    return [one.mark for one in await Ground(server.url).stored()]


async def settled(bank: Bank, server: NatsServer) -> tuple[list[str], list[str]]:
    """Return what is committed and what is stored, once nothing is on its way."""

    async def same() -> bool:
        # A commit may arrive after its writer has died.
        await bank.relayed()
        return len(await bank.committed()) == len(await stored(server))

    await eventually(same, 60)
    return await bank.committed(), await stored(server)


def in_order(marks: list[str]) -> bool:
    """Tell whether the numbers of each thread only rise."""
    reached: dict[str, int] = {}
    for mark in marks:
        thread, _, number = mark.partition(":")
        if int(number) <= reached.get(thread, 0):
            return False
        reached[thread] = int(number)
    return True


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
    committed, found = await settled(bank, nats_server)
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
    committed, found = await settled(bank, nats_server)
    assert sorted(found) == committed
    assert in_order(found)
