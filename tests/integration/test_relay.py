"""The relay: what is committed reaches the stream once, in the order of its keys, or says why not."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from eventbus import EventService
from eventbus.clock import SystemClock
from eventbus.drivers.abilities import InBulk
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.embedded import NatsServer
from eventbus.relay.batch import TRIES, Relaying
from eventbus.relay.relay import Relay
from eventbus.stores.sql.outbox import SqlOutbox
from eventbus.stores.sql.tables import lanes, outbox
from eventbus.subject import Subjects
from eventbus.telemetry.outbox import OutboxMeasured, Quarantined, RelayFailed, RelayRefused
from eventbus.telemetry.signals import Happened
from tests.integration.ledger import (
    Paid,
    database,
    reasons,
    service,
    session_of,
    settled,
    stored,
    until,
    waiting,
)
from tests.integration.rig import driver_of, stored_ids

pytestmark = [pytest.mark.nats]


class Heard:
    """What a relay told."""

    def __init__(self) -> None:
        self.all: list[Happened] = []

    def __call__(self, happened: Happened) -> None:
        self.all.append(happened)

    def of(self, kind: type) -> list[Happened]:
        return [one for one in self.all if isinstance(one, kind)]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    async with database(database_url) as engine:
        yield engine


@pytest.fixture
async def writer(nats_server: NatsServer, database_url: str) -> AsyncIterator[EventService]:
    """Give a service that leaves what it emits in the outbox."""
    async with service(nats_server.url, database_url, relay=False) as events:
        yield events


@pytest.fixture
async def events(nats_server: NatsServer, database_url: str) -> AsyncIterator[EventService]:
    """Give a service that relays what it emits."""
    async with service(nats_server.url, database_url) as events:
        yield events


@pytest.fixture
async def driver(nats_server: NatsServer) -> AsyncIterator[JetStreamDriver]:
    async with driver_of(nats_server.url, emit_timeout=1.0) as driver:
        yield driver


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def relay(engine: AsyncEngine, driver: JetStreamDriver, heard: Heard) -> Iterator[Relay]:
    outbox = SqlOutbox(engine, SystemClock())
    yield Relay(outbox, Relaying(driver, Subjects("events"), heard, SystemClock()))
    outbox.close()


async def emit(engine: AsyncEngine, writer: EventService, *events: Paid) -> None:
    """Emit events in one transaction."""
    async with session_of(engine) as session, session.begin(), writer.transaction(session):
        for event in events:
            await writer.emit(event)


def series(keys: int, each: int) -> list[Paid]:
    return [Paid(account=f"k{n % keys}", number=n) for n in range(keys * each)]


def in_order(found: list[Paid]) -> bool:
    """Tell whether each account's numbers only rise."""
    reached: dict[str, int] = {}
    for one in found:
        if one.number <= reached.get(one.account, -1):
            return False
        reached[one.account] = one.number
    return True


@pytest.mark.parametrize("count", [20, 1200], ids=["one by one", "in bulk"])
async def test_all_goes_once_in_the_order_of_its_keys(
    engine: AsyncEngine, writer: EventService, relay: Relay, nats_server: NatsServer, count: int
) -> None:
    await emit(engine, writer, *series(10, count // 10))

    gone = await relay.drain()

    found = await stored(nats_server.url)
    assert (gone, len(found), len({one.number for one in found})) == (count, count, count)
    assert in_order(found)
    assert await waiting(engine) == []


async def test_without_the_bulk_lane_it_is_the_same(
    engine: AsyncEngine,
    writer: EventService,
    relay: Relay,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(JetStreamDriver, "bulk", False)
    await emit(engine, writer, *series(7, 60))

    await relay.drain()

    found = await stored(nats_server.url)
    assert (len(found), in_order(found)) == (420, True)


async def test_several_relays_at_once_send_each_event_once_and_in_order(
    engine: AsyncEngine, writer: EventService, nats_server: NatsServer, database_url: str
) -> None:
    relays = [service(nats_server.url, database_url) for _ in range(3)]
    async with relays[0], relays[1], relays[2]:
        for part in range(10):
            events = [one.model_copy(update={"number": part * 100 + one.number}) for one in TEN]
            await emit(engine, writer, *events)

        await settled(engine)

    found = await stored(nats_server.url)
    assert len(found) == len({(one.account, one.number) for one in found}) == 1000
    assert in_order(found)


TEN = series(10, 10)


async def test_what_can_never_go_is_quarantined_and_holds_up_nothing(
    engine: AsyncEngine, writer: EventService, relay: Relay, heard: Heard, nats_server: NatsServer
) -> None:
    huge = Paid(account="a", number=2, filler="x" * 2_000_000)
    await emit(engine, writer, Paid(account="a", number=1), huge, Paid(account="a", number=3))

    await relay.drain()

    assert [one.number for one in await stored(nats_server.url)] == [1, 3]
    assert await waiting(engine) == []
    (reason,) = await reasons(engine)
    assert "the limit is" in reason
    assert reason.endswith("[driver.payload_too_large]")
    assert len(heard.of(Quarantined)) == 1


async def test_an_id_that_another_event_has_is_quarantined(
    engine: AsyncEngine, writer: EventService, relay: Relay, nats_server: NatsServer
) -> None:
    await writer.emit(Paid(account="a", number=1), id="taken")
    async with session_of(engine) as session, session.begin(), writer.transaction(session):
        await writer.emit(Paid(account="a", number=2), id="taken")
        await writer.emit(Paid(account="a", number=1), id="taken")
        await writer.emit_many(Paid(account="a", number=n) for n in range(3, 50))

    await relay.drain()

    found = [one.number for one in await stored(nats_server.url)]
    assert found == [1, *range(3, 50)]
    (reason,) = await reasons(engine)
    assert "is taken by 'payment.paid'" in reason


async def test_what_is_refused_again_and_again_is_quarantined_and_its_key_goes_on(
    engine: AsyncEngine, writer: EventService, relay: Relay, heard: Heard, nats_server: NatsServer
) -> None:
    await emit(engine, writer, *(Paid(account="a", number=n) for n in range(3)))
    await emit(engine, writer, Paid(account="b", number=0))
    async with engine.begin() as connection:  # a subject that no stream takes
        first = outbox.c.sequence == 1
        await connection.execute(update(outbox).where(first).values(subject="nowhere.at.all"))
    running = asyncio.ensure_future(relay.run())  # noqa: TID251 - cancelled below

    async def gone() -> bool:
        return not await waiting(engine)

    await until(gone, "the key doesn't go on", 60)
    running.cancel()
    await asyncio.wait({running})
    found = await stored(nats_server.url)
    assert [one.number for one in found if one.account == "a"] == [1, 2]
    assert found[0].account == "b"
    assert len(heard.of(RelayRefused)) == TRIES - 1
    assert "no stream takes" in (await reasons(engine))[0]


async def test_while_the_server_is_away_all_wait_and_nothing_is_blamed(
    engine: AsyncEngine, nats_server: NatsServer, database_url: str
) -> None:
    heard = Heard()
    bank = service(nats_server.url, database_url)
    bank.observe(heard)
    async with bank:
        nats_server.kill()
        await emit(engine, bank, *series(3, 10))

        async def refused() -> bool:
            return bool(heard.of(RelayRefused))

        await until(refused, "the relay doesn't tell")
        waited = await waiting(engine)
        nats_server.restart()
        await settled(engine)

    assert len(waited) == 30
    found = await stored(nats_server.url)
    assert (len(found), in_order(found), await reasons(engine)) == (30, True, [])


async def test_a_relay_sends_its_own_service_s_events_or_everyone_s(
    engine: AsyncEngine, writer: EventService, nats_server: NatsServer, database_url: str
) -> None:
    await emit(engine, writer, Paid(account="a", number=1))
    settings = writer.settings
    async with EventService("other", settings=settings, relay=True) as other:
        await emit(engine, other, Paid(account="a", number=2))

        async def gone() -> bool:
            return len(await waiting(engine)) == 1

        await until(gone, "its own event doesn't go")
    async with EventService("relay", settings=settings, relay="*"):
        await settled(engine)

    assert [one.number for one in await stored(nats_server.url)] == [2, 1]


async def test_relays_of_two_services_on_one_database_hold_up_neither(
    engine: AsyncEngine, nats_server: NatsServer, database_url: str
) -> None:
    settings = service(nats_server.url, database_url).settings
    async with (
        EventService("first", settings=settings, relay=True) as first,
        EventService("second", settings=settings, relay=True) as second,
        EventService("relay", settings=settings, relay="*"),
    ):
        for number in range(3):
            await emit(engine, first, Paid(account="a", number=number))
            await settled(engine)
            await emit(engine, second, Paid(account="b", number=number))
            await settled(engine)

    found = [(one.account, one.number) for one in await stored(nats_server.url)]
    assert found == [(account, number) for number in range(3) for account in "ab"]


async def test_it_says_how_much_waits(
    engine: AsyncEngine, writer: EventService, nats_server: NatsServer, database_url: str
) -> None:
    await emit(engine, writer, *series(2, 3))
    heard = Heard()
    watcher = EventService("idle", settings=writer.settings, relay="bank")
    watcher.observe(heard)
    async with engine.begin() as connection:
        await connection.execute(update(outbox).values(quarantined_at=SystemClock().now()))

    async with watcher:

        async def measured() -> bool:
            return bool(heard.of(OutboxMeasured))

        await until(measured, "it doesn't say")

    (first, *_) = heard.of(OutboxMeasured)
    assert first == OutboxMeasured(pending=0, oldest=0.0, quarantined=6)


async def test_a_migration_that_made_the_tables_alone_is_enough(
    engine: AsyncEngine, writer: EventService, nats_server: NatsServer, database_url: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(lanes.delete())

    async with service(nats_server.url, database_url) as bank:
        await emit(engine, bank, Paid(account="a", number=1))
        await settled(engine)

    assert len(await stored(nats_server.url)) == 1


async def test_a_relay_waits_for_its_tables(nats_server: NatsServer, database_url: str) -> None:
    heard = Heard()
    bank = service(nats_server.url, database_url)
    bank.observe(heard)
    async with bank:

        async def failed() -> bool:
            return bool(heard.of(RelayFailed))

        await until(failed, "it doesn't tell")
        async with database(database_url) as engine:
            await emit(engine, bank, Paid(account="a", number=1))
            await settled(engine)

    (first, *_) = heard.of(RelayFailed)
    assert "eventbus store init" in str(first)
    assert len(await stored(nats_server.url)) == 1


async def test_postgresql_tells_of_a_commit_to_both_drivers(
    postgres_dsn: str, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventbus.relay.relay.POLL", 3600.0)
    for driver in ("psycopg", "asyncpg"):
        url = postgres_dsn.replace("postgresql://", f"postgresql+{driver}://", 1)
        async with database(url) as engine, service(nats_server.url, url) as bank:
            for number in range(3):
                await emit(engine, bank, Paid(account=driver, number=number))
                await settled(engine)

    assert len(await stored(nats_server.url)) == 6


async def test_the_bulk_lane_counts_what_it_stored(
    driver: JetStreamDriver, nats_server: NatsServer
) -> None:
    from tests.integration.rig import event

    assert isinstance(driver, InBulk)
    few = [event(n) for n in range(5)]
    odd = event("odd", body=b"x" * 2_000_000)

    stored_all = await driver.publish_in_order(few)
    stored_again = await driver.publish_in_order([*few, event(5)])
    up_to_odd = await driver.publish_in_order([event(6), event(7), odd, event(8)])
    single = await driver.publish_in_order([event(9)])

    assert (stored_all, stored_again, up_to_odd, single) == (5, 6, 2, 0)
    assert await stored_ids(nats_server.url) == [f"id-{n}" for n in range(8)]


async def test_a_delayed_event_waits_on_the_server_once_it_is_committed(
    engine: AsyncEngine, events: EventService, nats_server: NatsServer
) -> None:
    async with session_of(engine) as session, session.begin(), events.transaction(session):
        soon = await events.emit(Paid(account="a", number=1), delay=1)
        late = await events.emit(Paid(account="a", number=2), delay="1h")
    await settled(engine)
    early = await stored(nats_server.url)

    cancelled = await events.cancel(late.id)

    async def fired() -> bool:
        return bool(await stored(nats_server.url))

    await until(fired, "it doesn't fire")
    assert (soon.pending, late.pending, early, cancelled) == (True, True, [], True)
    assert [one.number for one in await stored(nats_server.url)] == [1]


async def test_a_cancelled_relay_removes_what_the_stream_has(
    engine: AsyncEngine, writer: EventService, relay: Relay, nats_server: NatsServer
) -> None:
    await emit(engine, writer, *series(20, 20))
    running = asyncio.ensure_future(relay.run())  # noqa: TID251 - cancelled below

    async def some() -> bool:
        return len(await waiting(engine)) < 400

    await until(some, "nothing goes")
    running.cancel()
    await asyncio.wait({running})
    found = await stored(nats_server.url)

    assert running.cancelled()
    assert len(found) + len(await waiting(engine)) == 400
    assert in_order(found)


async def test_a_relay_that_is_cancelled_while_it_removes_rows_removes_them(
    engine: AsyncEngine, writer: EventService
) -> None:
    await emit(engine, writer, *series(2, 2))
    store = SqlOutbox(engine, SystemClock())
    leaving = asyncio.Event()

    async def relay() -> None:
        async with store.claim(10) as claim:
            for row in claim.rows:
                claim.done(row)
            leaving.set()

    async with asyncio.TaskGroup() as group, engine.begin() as other:
        await other.execute(select(outbox.c.sequence).with_for_update())
        relaying = group.create_task(relay())
        await leaving.wait()  # from here on it waits for the other one
        relaying.cancel()
    store.close()

    assert relaying.cancelled()
    assert await waiting(engine) == []
