"""The outbox: what an emit in a transaction costs, how fast a backlog goes, how late one event is.

``python -m bench.outbox`` runs it on SQLite, and on PostgreSQL where there is one.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from eventbus import Event, EventService, Settings
from eventbus.clock import SystemClock
from eventbus.embedded import NatsServer
from eventbus.stores.sql.engine import create_tables, opened
from eventbus.stores.sql.tables import outbox
from eventbus.telemetry.outbox import Relayed
from eventbus.telemetry.signals import Happened

ROWS = 20_000
BATCH = 100
SINGLE = 200


class Booked(Event, name="bench.booked", key="account"):
    """What is emitted."""

    account: str
    number: int


class Count:
    """When each event was relayed, and how many were."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.changed = asyncio.Event()

    def __call__(self, happened: Happened) -> None:
        """Take a signal."""
        if isinstance(happened, Relayed):
            self.at[happened.id] = time.perf_counter()
            self.changed.set()

    async def until(self, count: int) -> None:
        """Wait until so many are relayed."""
        while len(self.at) < count:
            self.changed.clear()
            await self.changed.wait()


def event(number: int) -> Booked:
    return Booked(account=f"a{number % 100}", number=number)


async def bare(engine: AsyncEngine, rows: int) -> float:
    """Return the seconds of storing rows of the same size by hand, 100 in a transaction."""
    statement = insert(outbox).returning(outbox.c.sequence)
    filled = {"id": "0" * 36, "name": "bench.booked", "source": "other", "key": "a1", "lane": 1}
    headers = '{"' + "x" * 420 + '": ""}'
    filled |= {"subject": "events.bench.booked", "headers": headers, "body": b"x" * 30}
    filled |= {"publish_at": None, "created_at": SystemClock().now(), "tries": 0}
    began = time.perf_counter()
    for _ in range(rows // BATCH):
        async with AsyncSession(engine) as session, session.begin():
            for _ in range(BATCH):
                (await session.execute(statement, filled)).scalar_one()
    return time.perf_counter() - began


async def emitted(engine: AsyncEngine, events: EventService, rows: int) -> float:
    """Return the seconds of emitting as many, 100 in a transaction."""
    began = time.perf_counter()
    for batch in range(rows // BATCH):
        session = AsyncSession(engine)
        async with session, session.begin(), events.transaction(session):
            for number in range(BATCH):
                await events.emit(event(batch * BATCH + number))
    return time.perf_counter() - began


async def drained(events: EventService, count: Count, rows: int) -> float:
    """Return the seconds until a backlog is in the stream, from the relay's start on."""
    began = time.perf_counter()
    async with events:
        await count.until(rows)
    return time.perf_counter() - began


async def late(engine: AsyncEngine, events: EventService, count: Count) -> list[float]:
    """Return for single events the milliseconds from the commit to the stream, sorted."""
    took: list[float] = []
    async with events:
        await asyncio.sleep(1)
        for number in range(SINGLE):
            async with AsyncSession(engine) as session:
                async with session.begin(), events.transaction(session):
                    receipt = await events.emit(event(number))
                committed = time.perf_counter()
            while receipt.id not in count.at:
                count.changed.clear()
                await count.changed.wait()
            took.append((count.at[receipt.id] - committed) * 1000)
    return sorted(took)


async def measure(url: str, server: str) -> None:
    """Measure one database, and print what was found."""
    settings = Settings(nats_url=server, store_url=url)
    count = Count()
    async with opened(url) as engine:
        await create_tables(engine)
        by_hand, by_emit = [], []
        writer = EventService("bench", settings=settings)
        async with writer:
            for _ in range(4):  # in turns, so that both have the same machine
                by_hand.append(await bare(engine, ROWS // 4))
                by_emit.append(await emitted(engine, writer, ROWS // 4))
        relay = EventService("bench", settings=settings, relay=True, observers=[count])
        seconds = await drained(relay, count, ROWS)
        took = await late(engine, relay, count)
        async with engine.begin() as connection:
            await connection.execute(outbox.delete())
    p50, p99 = statistics.median(took), took[int(len(took) * 0.99)]
    print(f"{engine.dialect.name} ({engine.dialect.driver})")
    print(f"  emit in a transaction  {sum(by_emit) / ROWS * 1e6:8.0f} us")
    print(f"  INSERT of the same row {sum(by_hand) / ROWS * 1e6:8.0f} us")
    print(f"  ratio                  {sum(by_emit) / sum(by_hand):8.2f}")
    print(f"  backlog of {ROWS}       {ROWS / seconds:8.0f} rows/s")
    print(f"  commit to stream       {p50:8.1f} ms (p50), {p99:.1f} ms (p99)")


def main() -> None:
    """Measure SQLite, and the PostgreSQL whose URLs are given or that the tests would use."""
    with tempfile.TemporaryDirectory() as folder:
        with NatsServer() as server:
            asyncio.run(measure(f"sqlite+aiosqlite:///{Path(folder)}/bus.db", server.url))
        from tests.postgres import Postgres

        with Postgres() as postgres:
            for driver in ("psycopg", "asyncpg"):
                url = postgres.database().replace("postgresql:", f"postgresql+{driver}:", 1)
                with NatsServer() as server:
                    asyncio.run(measure(url, server.url))


if __name__ == "__main__":
    main()
