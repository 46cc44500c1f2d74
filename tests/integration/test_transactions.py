"""Emits in a database transaction: they go with its commit, and with nothing else."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import create_engine, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.ext.asyncio import async_sessionmaker as maker
from sqlalchemy.orm import Session

from eventbus import EventService, StateEvent
from eventbus.clock import SystemClock
from eventbus.embedded import NatsServer
from eventbus.errors import StoreError
from eventbus.stores.sql.engine import opened, reading
from eventbus.stores.sql.outbox import SqlOutbox
from tests.integration.ledger import (
    Paid,
    bookings,
    database,
    service,
    session_of,
    settled,
    stored,
    waiting,
)
from tests.integration.rig import plain

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    async with database(database_url) as engine:
        yield engine


@pytest.fixture
async def events(nats_server: NatsServer, database_url: str) -> AsyncIterator[EventService]:
    """Give a service that relays what it emits."""
    async with service(nats_server.url, database_url) as events:
        yield events


@pytest.fixture
async def writer(nats_server: NatsServer, database_url: str) -> AsyncIterator[EventService]:
    """Give a service that leaves what it emits in the outbox."""
    async with service(nats_server.url, database_url, relay=False) as events:
        yield events


async def booked(engine: AsyncEngine) -> int:
    async with reading(engine).connect() as connection:
        return await connection.scalar(select(func.count()).select_from(bookings)) or 0


async def book(session: AsyncSession, account: str = "a") -> None:
    await session.execute(insert(bookings), {"account": account})


def paid(number: int, account: str = "a") -> Paid:
    return Paid(account=account, number=number)


async def numbers(server: NatsServer) -> list[int]:
    return [one.number for one in await stored(server.url)]


async def test_a_committed_event_goes_to_the_stream(
    engine: AsyncEngine, events: EventService, nats_server: NatsServer
) -> None:
    async with session_of(engine) as session, session.begin(), events.transaction(session):
        await book(session)
        receipt = await events.emit(paid(1))
        early = await numbers(nats_server)

    await settled(engine)
    assert (receipt.pending, receipt.driver, receipt.duplicate) == (True, "outbox", False)
    assert (early, await numbers(nats_server), await booked(engine)) == ([], [1], 1)


async def test_an_event_of_a_transaction_that_rolls_back_never_was(
    engine: AsyncEngine, events: EventService, nats_server: NatsServer
) -> None:
    async def fail() -> None:
        async with session_of(engine) as session, session.begin(), events.transaction(session):
            await book(session)
            await events.emit(paid(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with session_of(engine) as session, session.begin(), events.transaction(session):
        await events.emit(paid(2))

    await settled(engine)
    assert (await numbers(nats_server), await booked(engine)) == ([2], 0)


async def test_a_savepoint_that_rolls_back_takes_its_own_events_alone(
    engine: AsyncEngine, writer: EventService
) -> None:
    async with session_of(engine) as session, session.begin(), writer.transaction(session):
        await writer.emit(paid(1))
        kept = await session.begin_nested()
        await writer.emit(paid(2))
        await kept.commit()
        dropped = await session.begin_nested()
        await writer.emit(paid(3))
        await dropped.rollback()
        await writer.emit(paid(4))

    assert len(await waiting(engine)) == 3


async def test_relays_are_woken_though_the_savepoint_that_told_them_first_rolled_back(
    engine: AsyncEngine, writer: EventService
) -> None:
    woken = asyncio.Event()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        watching = group.create_task(SqlOutbox(engine, SystemClock()).watch(woken.set))
        await woken.wait()  # it listens from now on
        woken.clear()
        async with session_of(engine) as session, session.begin(), writer.transaction(session):
            dropped = await session.begin_nested()
            await writer.emit(paid(1))
            await dropped.rollback()
            await writer.emit(paid(2))
        await woken.wait()
        watching.cancel()

    assert len(await waiting(engine)) == 1


async def test_a_savepoint_that_is_released_follows_the_root(
    engine: AsyncEngine, writer: EventService
) -> None:
    async with session_of(engine) as session, writer.transaction(session):
        async with session.begin_nested():
            await writer.emit(paid(1))
        await session.rollback()

    assert await waiting(engine) == []


async def test_nested_blocks_follow_the_root(engine: AsyncEngine, writer: EventService) -> None:
    async with session_of(engine) as session, writer.transaction(session):
        await writer.emit(paid(1))
        async with writer.transaction(session):
            await writer.emit(paid(2))
        between = await waiting(engine)
        await writer.emit(paid(3))
        await session.commit()

    assert (between, len(await waiting(engine))) == ([], 3)


async def test_two_transactions_at_once_keep_apart(
    engine: AsyncEngine, writer: EventService
) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    async with session_of(engine) as one, session_of(engine) as other:
        async with writer.transaction(one):
            await writer.emit(paid(1))
            async with writer.transaction(other):
                await writer.emit(paid(2))
            await writer.emit(paid(3))
        await one.rollback()
        await other.commit()

    assert len(await waiting(engine)) == 1


async def test_connections_and_scoped_sessions_work_too(
    engine: AsyncEngine, writer: EventService
) -> None:
    scoped = async_scoped_session(maker(engine), scopefunc=asyncio.current_task)
    async with engine.begin() as connection, writer.transaction(connection):
        await writer.emit(paid(1))
    async with writer.transaction(scoped):
        await writer.emit(paid(2))
        await scoped.commit()
    await scoped.remove()

    assert len(await waiting(engine)) == 2


async def test_sessions_and_connections_that_are_not_async_work_too(
    engine: AsyncEngine, writer: EventService
) -> None:
    url = engine.url.set(drivername=engine.url.drivername.replace("+aiosqlite", ""))
    plain_engine = create_engine(url)
    with Session(plain_engine) as session, session.begin():
        async with writer.transaction(session):
            session.execute(insert(bookings), {"account": "a"})
            await writer.emit(paid(1))
    with plain_engine.begin() as connection:
        async with writer.transaction(connection):
            await writer.emit(paid(2))
    plain_engine.dispose()

    assert len(await waiting(engine)) == 2
    assert await booked(engine) == 1


async def test_an_immediate_emit_goes_whatever_becomes_of_the_transaction(
    engine: AsyncEngine, events: EventService, nats_server: NatsServer
) -> None:
    async with session_of(engine) as session, events.transaction(session):
        direct = await events.emit(paid(1), immediate=True)
        await events.emit(paid(2))
        await session.rollback()

    assert (direct.pending, direct.driver) == (False, "jetstream")
    assert await numbers(nats_server) == [1]


async def test_after_the_block_emits_go_direct(
    engine: AsyncEngine, writer: EventService, nats_server: NatsServer
) -> None:
    go = asyncio.Event()

    async def late() -> bool:
        await go.wait()
        return (await writer.emit(paid(2))).pending

    async with asyncio.TaskGroup() as group:
        async with session_of(engine) as session, writer.transaction(session):
            outliving = group.create_task(late())
        pending = (await writer.emit(paid(1))).pending
        go.set()

    assert (pending, await outliving) == (False, False)
    assert await numbers(nats_server) == [1, 2]


async def test_many_emits_at_once_keep_their_order(
    engine: AsyncEngine, events: EventService, nats_server: NatsServer
) -> None:
    async with session_of(engine) as session, session.begin(), events.transaction(session):
        await events.emit_many(paid(number) for number in range(40))

    await settled(engine)
    assert await numbers(nats_server) == list(range(40))


async def test_the_stream_gets_what_a_direct_emit_would_have_sent(
    engine: AsyncEngine, events: EventService, nats_server: NatsServer
) -> None:
    async with session_of(engine) as session, session.begin(), events.transaction(session):
        await events.emit(paid(1, "ä"), id="one", headers={"x-a": "ü"}, correlation_id="c")
    await settled(engine)
    await events.emit(paid(1, "ä"), id="two", headers={"x-a": "ü"}, correlation_id="c")

    async with plain(nats_server.url) as client:
        manager = client.jetstream()
        both = [await manager.get_msg("EVENTS", sequence) for sequence in (1, 2)]
    headers = [dict(one.headers or {}) for one in both]
    assert headers[0]["Nats-Msg-Id"] == headers[0]["ce-id"] == "one"
    for one in headers:
        del one["Nats-Msg-Id"], one["ce-id"], one["ce-time"]
    assert headers[0] == headers[1]
    assert (both[0].subject, both[0].data) == (both[1].subject, both[1].data)


async def test_what_is_no_session_and_no_connection_is_refused(
    engine: AsyncEngine, writer: EventService
) -> None:
    with pytest.raises(TypeError, match="takes a session or connection of SQLAlchemy"):
        async with writer.transaction(engine):  # type: ignore[arg-type]
            pass


async def test_without_the_table_the_error_names_the_command(
    nats_server: NatsServer, database_url: str
) -> None:
    bank = service(nats_server.url, database_url, relay=False)
    async with bank, opened(database_url) as engine:
        session = session_of(engine)
        async with session, bank.transaction(session):
            with pytest.raises(StoreError, match="eventbus store init"):
                await bank.emit(paid(1))


async def test_a_fake_records_what_a_transaction_emits_once_that_commits(
    engine: AsyncEngine, writer: EventService
) -> None:
    with writer.fake() as fake:
        async with session_of(engine) as session, session.begin(), writer.transaction(session):
            await writer.emit(paid(1))
            await writer.emit(paid(2), immediate=True)
            early = [one.event for one in fake.emitted()]
        session = session_of(engine)
        async with session, session.begin() as transaction, writer.transaction(session):
            await writer.emit(paid(3))
            await transaction.rollback()

    assert early == [paid(2)]
    assert [one.event for one in fake.emitted()] == [paid(2), paid(1)]


class BalanceChanged(StateEvent, name="balance.changed", key="account"):
    account: str
    amount: int


@pytest.mark.parametrize("count", [2, 100], ids=["one by one", "in bulk"])
async def test_of_states_in_transactions_the_last_that_is_committed_is_kept(
    engine: AsyncEngine, events: EventService, count: int
) -> None:
    async def change(*amounts: int) -> None:
        async with session_of(engine) as session, session.begin(), events.transaction(session):
            for amount in amounts:
                await events.emit(BalanceChanged(account="a", amount=amount))
            if amounts[-1] < 0:
                raise ZeroDivisionError

    await change(*range(1, count + 1))
    with pytest.raises(ZeroDivisionError):
        await change(-1)

    await settled(engine)
    assert await events.state(BalanceChanged, "a") == BalanceChanged(account="a", amount=count)


async def test_a_state_that_is_deleted_in_a_transaction_goes_with_its_commit(
    engine: AsyncEngine, events: EventService
) -> None:
    await events.emit(BalanceChanged(account="a", amount=1))
    async with session_of(engine) as session, session.begin(), events.transaction(session):
        await events.delete_state(BalanceChanged, "a")
        early = await events.state(BalanceChanged, "a")

    await settled(engine)
    assert early is not None
    assert await events.state(BalanceChanged, "a") is None
