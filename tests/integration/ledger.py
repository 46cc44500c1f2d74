"""What the tests of the outbox share: a database, an event, and what the stream holds of it."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from sqlalchemy import Column, Integer, MetaData, String, Table, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from eventbus import Event, EventService
from eventbus.stores.sql.engine import create_tables, opened, reading
from eventbus.stores.sql.tables import outbox
from tests.integration.rig import plain, settings_of
from tests.waiting import comes_true

__all__ = (
    "Paid",
    "bookings",
    "database",
    "reasons",
    "service",
    "session_of",
    "settled",
    "stored",
    "until",
    "waiting",
)

_metadata = MetaData()
bookings = Table(
    "bookings",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("account", String(40), nullable=False),
)
"""The application's own table."""


class Paid(Event, name="payment.paid", key="account"):
    """What is emitted with a booking."""

    account: str
    number: int
    filler: str = ""


@asynccontextmanager
async def database(url: str) -> AsyncIterator[AsyncEngine]:
    """Give a database with the tables of the stores and of the application."""
    async with opened(url) as engine:
        await create_tables(engine)
        await create_tables(engine, _metadata)
        yield engine


def service(server: str, database_url: str, *, relay: bool | str = True) -> EventService:
    """Return a service on a server, which gives up early."""
    settings = settings_of(server, store_url=database_url, provision="auto")
    return EventService("bank", settings=settings, relay=relay)


async def stored(server: str) -> list[Paid]:
    """Return the events in the stream, in its order."""
    found: list[Paid] = []
    async with plain(server) as client:
        manager = client.jetstream()
        state = (await manager.stream_info("EVENTS")).state
        for sequence in range(max(1, state.first_seq), state.last_seq + 1):
            message = await manager.get_msg("EVENTS", sequence)
            found.append(Paid.model_validate_json(message.data or b""))
    return found


async def waiting(engine: AsyncEngine) -> list[int]:
    """Return the sequences of the rows in the outbox that can go."""
    return await _sequences(engine, quarantined=False)


async def settled(engine: AsyncEngine) -> None:
    """Wait until no row waits any more."""
    await until(lambda: _none(engine), "rows still wait")


async def _none(engine: AsyncEngine) -> bool:
    return not await waiting(engine)


async def reasons(engine: AsyncEngine) -> list[str]:
    """Return why rows are quarantined."""
    async with reading(engine).connect() as connection:
        query = select(outbox.c.reason).where(outbox.c.quarantined_at.is_not(None))
        return [str(one) for one in await connection.scalars(query.order_by(outbox.c.sequence))]


async def _sequences(engine: AsyncEngine, *, quarantined: bool) -> list[int]:
    at = outbox.c.quarantined_at
    which = at.is_not(None) if quarantined else at.is_(None)
    async with reading(engine).connect() as connection:
        query = select(outbox.c.sequence).where(which).order_by(outbox.c.sequence)
        return list((await connection.scalars(query)).all())


async def until(
    condition: Callable[[], Coroutine[None, None, bool]], problem: str, seconds: float = 30
) -> None:
    """Wait for what the database or the server shows."""
    if not await comes_true(condition, seconds):
        raise AssertionError(problem)


def session_of(engine: AsyncEngine) -> AsyncSession:
    """Return a session on an engine."""
    return AsyncSession(engine, expire_on_commit=False)
