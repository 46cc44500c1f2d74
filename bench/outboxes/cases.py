"""What each outbox is asked to do, and how that is measured: the same for all."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import nats
from nats.aio.msg import Msg
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from bench.load import STREAM, SUBJECT, Meter, Result, payload

__all__ = ("CASES", "SIZES", "Outbox", "Places", "run_case")

LOOK_EVERY = 0.02
BATCH = 100
"""Events of one transaction, where a backlog is made."""
_metadata = MetaData()
orders = Table(
    "orders",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("order_id", String(40), nullable=False),
    Column("customer_id", String(40), nullable=False),
)
"""The application's own table."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a contestant works."""

    engine: AsyncEngine
    database: str
    server: str


class Outbox(Protocol):
    """A contestant."""

    driver: str
    """The database's driver."""
    waiting: str
    """The query that finds a row while one waits."""
    relays: bool
    """Whether it takes anything to the stream."""

    def opened(self, places: Places) -> AbstractAsyncContextManager[None]:
        """Make its tables and its stream, and be able to store."""
        ...

    async def store(self, session: AsyncSession, numbers: Sequence[int]) -> None:
        """Store events in the transaction that a session is in."""
        ...

    def relaying(self) -> AbstractAsyncContextManager[None]:
        """Relay while the block lasts."""
        ...


async def write(outbox: Outbox, places: Places, events: int) -> Result:
    """Commit a row of the application and one event, again and again."""
    await _transactions(outbox, places, range(events // 10), each=1)
    took: list[float] = []
    with Meter() as meter:
        for number in range(events):
            began = time.perf_counter()
            await _transaction(outbox, places, [number])
            took.append((time.perf_counter() - began) * 1e6)
    return meter.result(events, tuple(took))


async def drain(outbox: Outbox, places: Places, events: int) -> Result:
    """Work off a backlog: from the relay's start until no row waits and the stream has all."""
    await _transactions(outbox, places, range(events), each=BATCH)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(places.engine.connect())
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        query = text(outbox.waiting)
        with Meter() as meter:
            await stack.enter_async_context(outbox.relaying())
            while (await autocommit.execute(query)).first():  # noqa: ASYNC110 - a server's state
                await asyncio.sleep(LOOK_EVERY)
    client = await nats.connect(places.server)
    state = (await client.jetstream().stream_info(STREAM)).state
    await client.close()
    assert state.messages == events, f"{state.messages} of {events} are in the stream"
    return meter.result(events)


async def late(outbox: Outbox, places: Places, events: int) -> Result:
    """Commit single events, and wait for each until the server hands it to a subscriber."""
    came = asyncio.Event()
    at = 0.0

    async def take(message: Msg) -> None:
        nonlocal at
        at = time.perf_counter()
        json.loads(message.data)
        came.set()

    took: list[float] = []
    client = await nats.connect(places.server)
    await client.subscribe(SUBJECT, cb=take)
    async with outbox.relaying():
        for number in range(-5, events):
            came.clear()
            await _transaction(outbox, places, [number])
            committed = time.perf_counter()
            async with asyncio.timeout(60):
                await came.wait()
            if number == -1:
                meter = Meter().__enter__()
            if number >= 0:
                took.append(max(0.0, at - committed) * 1e6)
        meter.__exit__()
    await client.close()
    return meter.result(events, tuple(took))


CASES: dict[str, Callable[[Outbox, Places, int], object]] = {
    "write": write,
    "drain": drain,
    "late": late,
}
SIZES = {"write": 1_500, "drain": 10_000, "late": 100}
"""Events of one run."""


async def run_case(outbox: Outbox, case: str, events: int, places: tuple[str, str]) -> Result:
    """Run a case on an empty database (a DSN) and a server (a URL)."""
    dsn, server = places
    database = dsn.replace("postgresql:", f"postgresql+{outbox.driver}:", 1)
    engine = create_async_engine(database, pool_size=40)
    async with engine.begin() as connection:
        await connection.run_sync(_metadata.create_all)
    where = Places(engine, database, server)
    async with outbox.opened(where):
        result: Result = await CASES[case](outbox, where, events)
    await engine.dispose()
    return result


async def _transaction(outbox: Outbox, places: Places, numbers: Sequence[int]) -> None:
    fields = payload(numbers[0])
    row = {"order_id": fields["order_id"], "customer_id": fields["customer_id"]}
    async with AsyncSession(places.engine) as session, session.begin():
        await session.execute(insert(orders), row)
        await outbox.store(session, numbers)


async def _transactions(
    outbox: Outbox, places: Places, numbers: Sequence[int], *, each: int
) -> None:
    for first in range(0, len(numbers), each):
        await _transaction(outbox, places, numbers[first : first + each])
