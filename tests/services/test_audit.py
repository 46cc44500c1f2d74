"""The audit trail: everything, once, as it was."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from eventbus import Event, EventService
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.errors import SettingsError
from eventbus.settings import Settings
from services.audit.listeners import AuditService, AuditSettings
from tests.services.house import House, Watch, running

pytestmark = pytest.mark.nats


class LampLit(Event, name="lamp.lit", version=3, key="lamp"):
    """An event that no schema package declares."""

    lamp: str
    more: dict[str, object]


@pytest.fixture
def elsewhere(eventbus_settings: Settings) -> EventService:
    return EventService("elsewhere", settings=eventbus_settings)


def lit(lamp: str = "l-1") -> LampLit:
    return LampLit(lamp=lamp, more={"ünï": [1, 2.5, None, 2**70], "nested": {"a": True}})


async def test_an_event_that_nobody_here_declares_is_kept_with_everything_about_it(
    house: House, elsewhere: EventService
) -> None:
    watch = Watch(house.audit)
    before = datetime.now(UTC)  # noqa: TID251 - to compare with what a service wrote

    async with running(house.audit, elsewhere):
        receipt = await elsewhere.emit(lit(), id="e-1", correlation_id="story-1")
        await watch.until(lambda: len(watch.settled) == 1)

    [row] = house.rows()
    assert (row.id, row.name, row.version, row.source) == ("e-1", "lamp.lit", 3, "elsewhere")
    assert (row.key, row.correlation_id, row.causation_id) == ("l-1", "story-1", None)
    assert (row.stream, row.sequence) == (receipt.stream, receipt.sequence)
    assert before <= datetime.fromisoformat(row.time) <= datetime.now(UTC)  # noqa: TID251
    assert row.payload == lit().model_dump()


async def test_a_new_trail_begins_with_what_happened_before_it(
    house: House, elsewhere: EventService
) -> None:
    watch = Watch(house.audit)

    async with elsewhere:
        for number in range(3):
            await elsewhere.emit(lit(f"l-{number}"))
        async with house.audit:
            await watch.until(lambda: len(watch.settled) == 3)

    assert [row.key for row in house.rows()] == ["l-0", "l-1", "l-2"]


async def kept(house: House, url: str, namespace: str, event: Event) -> None:
    """Audit one event under the id ``e-1``; each namespace is a bus of its own."""
    common = {"nats_url": url, "namespace": namespace}
    audit = AuditService(AuditSettings(**common, audit_database=house.database))
    elsewhere = EventService("elsewhere", settings=Settings(**common))
    watch = Watch(audit)
    async with running(audit, elsewhere):
        await elsewhere.emit(event, id="e-1")
        await watch.until(lambda: bool(watch.ended(Outcome.OK)))


@pytest.mark.eventbus("real")
async def test_an_id_that_is_kept_stays_as_it_is(nats_server: NatsServer, house: House) -> None:
    await kept(house, nats_server.url, "first", lit("l-1"))
    await kept(house, nats_server.url, "second", lit("l-2"))

    assert [(row.id, row.key) for row in house.rows()] == [("e-1", "l-1")]


async def test_a_database_that_is_locked_makes_the_event_wait(
    house: House, elsewhere: EventService, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(house.audit)

    async with running(house.audit, elsewhere):
        other = sqlite3.connect(house.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await elsewhere.emit(lit())
        await watch.until(lambda: bool(watch.ended(Outcome.RETRY)))
        other.execute("COMMIT")
        other.close()
        await watch.until(lambda: bool(watch.ended(Outcome.OK)))

    assert len(house.rows()) == 1


async def test_it_doesnt_start_without_its_database(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = AuditSettings(nats_url=nats_server.url, audit_database=tmp_path)
    service = AuditService(settings)

    with pytest.raises(SettingsError, match="EVENTBUS_AUDIT_DATABASE="):
        await service.start()


async def test_it_reads_the_database_when_it_starts_and_can_start_again(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = AuditService()
    monkeypatch.setenv("EVENTBUS_NATS_URL", nats_server.url)
    monkeypatch.setenv("EVENTBUS_AUDIT_DATABASE", str(tmp_path / "a" / "trail.sqlite3"))

    async with service:
        pass
    async with service:
        made = (tmp_path / "a" / "trail.sqlite3").is_file()

    assert made
