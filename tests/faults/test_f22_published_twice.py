"""F22: a relay dies between a publish and its row's removal, so the event is published again."""

from pathlib import Path

import pytest

from eventbus import EventService
from eventbus.clock import SystemClock
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from eventbus.stores.sql.outbox import SqlOutbox
from tests.faults.harness.bank import Bank, service
from tests.faults.harness.ground import Ground
from tests.faults.harness.step import StepTaken
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats]


async def half_relayed(bank: Bank, settings: Settings, count: int) -> None:
    """Have a relay publish what waits, and die before it removes the rows."""
    store = SqlOutbox(bank.engine, SystemClock())
    async with JetStreamDriver(settings, service="bank") as driver, store.claim(100) as claim:
        assert len(claim.rows) == count
        for row in claim.rows:
            await driver.publish(row.message)
    store.close()


@pytest.mark.parametrize(
    ("window", "times"), [(600.0, 1), (2.0, 2)], ids=["within the window", "beyond it"]
)
async def test_f22_an_event_that_is_published_again_is_dropped_within_the_window(
    nats_server: NatsServer, database_url: str, tmp_path: Path, window: float, times: int
) -> None:
    ground = Ground(nats_server.url)
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        writer = service(nats_server.url, database_url, relay=False)
        settings = writer.settings.model_copy(update={"provision": "off"})
        async with writer, bank.engine.begin() as connection, writer.transaction(connection):
            for number in range(20):
                await writer.emit(StepTaken(thread="t", number=number))
        await ground.edit("EVENTS", duplicate_window=int(window * 1e9))
        await half_relayed(bank, settings, 20)
        if times > 1:
            await forgotten(ground)

        async with EventService("bank", settings=settings, relay=True):
            await bank.relayed()

    found = await ground.stored()
    assert sorted(one.mark for one in found) == sorted([f"t:{n}" for n in range(20)] * times)
    # A listener tells a repetition by the id, which stays.
    assert len({one.id for one in found}) == 20


async def forgotten(ground: Ground) -> None:
    """Wait until the server has forgotten the ids that it knew."""
    probe = {"Nats-Msg-Id": "probe"}
    await ground.publish("events.probe.sent", b"{}", **probe)
    first = await ground.last_sequence()

    async def is_forgotten() -> bool:
        await ground.publish("events.probe.sent", b"{}", **probe)
        return await ground.last_sequence() > first

    await eventually(is_forgotten)
