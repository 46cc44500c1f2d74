"""F2: the power goes, and with it all that the server hasn't synced to its disk."""

import asyncio
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.bank import Bank
from tests.faults.harness.disk import Disk
from tests.faults.harness.ground import Ground

pytestmark = [pytest.mark.faults, pytest.mark.nats]


async def marks(server: NatsServer) -> set[str]:
    return {one.mark for one in await Ground(server.url).stored()}


async def test_f02_what_left_the_outbox_survives_a_power_cut(
    tmp_path: Path, database_url: str
) -> None:
    with Disk(tmp_path) as disk:
        with NatsServer(store=disk.path / "nats", sync_interval="always") as server:
            async with Bank.open(server.url, database_url, tmp_path) as bank:
                await bank.relay()
                await bank.writer()
                await bank.relays(100)
                gone = await bank.gone()
                after = await asyncio.to_thread(disk.lose_power)
            server.kill()
        with NatsServer(store=after / "nats", sync_interval="always") as again:
            survived = await marks(again)

    assert gone
    assert gone - survived == set()
