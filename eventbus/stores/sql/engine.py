"""The database behind the stores: which it may be, how it is opened, and its tables."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from sqlite3 import OperationalError

from sqlalchemy import Connection, Engine, MetaData, event, inspect, make_url, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from eventbus.errors import SettingsError, StoreError
from eventbus.stores.sql.tables import LANES, lanes, metadata

__all__ = (
    "DRIVERS",
    "create_tables",
    "dispose",
    "engine_of",
    "opened",
    "reading",
    "seed_lanes",
    "translated",
)

DRIVERS = ("sqlite+aiosqlite", "postgresql+psycopg", "postgresql+asyncpg")
"""What a store's URL may begin with."""
READS = "eventbus_reads"
"""The execution option of SQLite's transactions that needn't be able to write."""
_SEED = "INSERT INTO eventbus_outbox_lanes (lane) VALUES (:lane) ON CONFLICT DO NOTHING"
CREATING = 0x6576656E74627573
"""The advisory lock of whoever creates tables on PostgreSQL: the name of this package."""
BUSY_TIMEOUT = 10_000
"""Milliseconds that SQLite waits for another writer."""
AGAIN = 20
"""Milliseconds after which a new file is asked again to be written ahead."""


def engine_of(url: str) -> AsyncEngine:
    """Return the engine for a store's URL; it connects when it is first used.

    Plain ``sqlite://`` and ``postgresql://`` mean aiosqlite and psycopg. SQLite writes ahead
    (WAL), and a transaction waits at its begin for the writer before it; see `reading`.

    Raises:
        SettingsError: It isn't a database that the stores work with, or a package is missing.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise SettingsError(f"the store's URL can't be read: {exc}") from exc
    plain = {"sqlite": DRIVERS[0], "postgresql": DRIVERS[1], "postgres": DRIVERS[1]}
    parsed = parsed.set(drivername=plain.get(parsed.drivername, parsed.drivername))
    if parsed.drivername not in DRIVERS:
        raise SettingsError(
            f"the stores don't work with '{parsed.drivername}'; use {', '.join(DRIVERS)}"
        )
    try:
        engine = create_async_engine(parsed, pool_pre_ping=parsed.drivername != DRIVERS[0])
    except (ModuleNotFoundError, NoSuchModuleError) as exc:
        raise SettingsError(
            f"'{parsed.drivername}' needs a package that is missing ({exc}); "
            "pip install 'eventbus[sql]'"
        ) from exc
    if parsed.get_backend_name() == "sqlite":
        _tune(engine.sync_engine)
    return engine


def _tune(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: DBAPIConnection, _record: object) -> None:
        # Python's own begins no transaction before a savepoint, whose release then commits.
        connection.isolation_level = None
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        cursor.close()

    @event.listens_for(engine, "invalidate")
    def invalidated(connection: DBAPIConnection, _record: object, _error: object) -> None:
        # A statement that was cancelled keeps its transaction, and with it the lock of all
        # writers, beyond the close of its connection, for as long as anything refers to it.
        with suppress(Exception, asyncio.CancelledError):  # the first cancellation goes on
            connection.rollback()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # One that reads first and then writes can't wait for another writer, and fails at once.
        reads = connection.get_execution_options().get(READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _write_ahead(cursor: DBAPICursor) -> None:
    """Have the file written ahead, as its first connections of several processes may do at once.

    SQLite waits with a lock in hand that those need whom it waits for; so it is asked again.
    """
    cursor.execute("PRAGMA busy_timeout = 0")
    for _ in range(BUSY_TIMEOUT // AGAIN):
        with suppress(OperationalError):
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        await_only(asyncio.sleep(AGAIN / 1000))
    cursor.execute("PRAGMA journal_mode = WAL")


def reading(engine: AsyncEngine) -> AsyncEngine:
    """Return the engine for transactions that begin with reading, and hold up no writer."""
    return engine.execution_options(**{READS: True})


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[AsyncEngine]:
    """Give the engine of a URL, and close it at the end."""
    engine = engine_of(url)
    try:
        yield engine
    finally:
        await dispose(engine)


async def dispose(engine: AsyncEngine) -> None:
    """Close the connections of an engine that nobody uses now.

    Cancelled, it closes them all before the cancellation goes on: what a pool has let go of, and
    isn't closed, keeps a thread.
    """
    failed: Exception | None = None
    cancelled: asyncio.CancelledError | None = None

    async def close() -> None:
        nonlocal failed
        try:
            await engine.dispose()
        except Exception as exc:  # noqa: BLE001 - raised below, not as a group
            failed = exc

    async with asyncio.TaskGroup() as group:
        closing = group.create_task(close())
        while not closing.done():
            try:
                await asyncio.wait((closing,))
            except asyncio.CancelledError as exc:
                cancelled = exc
    if cancelled is not None:
        raise cancelled
    if failed is not None:
        raise failed


async def create_tables(engine: AsyncEngine, wanted: MetaData = metadata) -> tuple[str, ...]:
    """Create the tables that are missing, and return their names; what is there stays as it is.

    Several processes may do so at once: one creates, and the others find them. The folder of an
    SQLite database is made too.

    Raises:
        StoreError: The database can't be reached, or refuses it.
    """
    with translated("creating the tables"):
        file = engine.url.database
        if engine.dialect.name == "sqlite" and file:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        async with engine.begin() as connection:
            made: tuple[str, ...] = await connection.run_sync(_create, wanted)
            return made


def _create(connection: Connection, wanted: MetaData) -> tuple[str, ...]:
    if connection.dialect.name == "postgresql":
        # Two that create one table at the same time don't wait for each other by themselves.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CREATING})
    there = set(inspect(connection).get_table_names())
    wanted.create_all(connection)
    if lanes.name in wanted.tables:
        seed_lanes(connection)
    return tuple(name for name in wanted.tables if name not in there)


def seed_lanes(connection: Connection) -> None:
    """Write the rows of the lanes that are missing; migrations make the table alone."""
    there = set(connection.scalars(select(lanes.c.lane)))
    missing = [{"lane": lane} for lane in range(LANES) if lane not in there]
    if missing:
        # Two processes may do this at once.
        connection.execute(text(_SEED), missing)


@contextmanager
def translated(doing: str) -> Generator[None]:
    """Raise what the database raises as a `StoreError`."""
    try:
        yield
    except (SQLAlchemyError, OSError) as exc:
        cause = getattr(exc, "orig", None) or exc
        hint = "; 'eventbus store init' makes the tables" if _lacks_table(cause) else ""
        raise StoreError(f"{doing} failed: {type(cause).__name__}: {cause}{hint}") from exc


def _lacks_table(error: object) -> bool:
    text = str(error)
    return "eventbus_" in text and ("no such table" in text or "does not exist" in text)
