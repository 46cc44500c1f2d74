"""What a relay holds while all of it is frozen, on PostgreSQL: its lanes, and not for ever."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from eventbus import EventService
from eventbus.clock import SystemClock
from eventbus.embedded import NatsServer
from eventbus.errors import StoreError
from eventbus.stores.sql import outbox as sql_outbox
from eventbus.stores.sql.engine import opened
from eventbus.stores.sql.outbox import SqlOutbox
from tests.integration.ledger import Paid, database, service, session_of, until, waiting

pytestmark = [pytest.mark.nats]

BEFORE_THE_DEFAULT = 15
"""Seconds for what takes one, and no machine is so busy that it were the default, 90 s."""
MORE_THAN_SOCKETS_BUFFER = (40, 600_000)
"""Rows, and bytes of each."""


class Frozen:
    """A relay in a thread and a loop of its own, which stands still in the middle of a claim."""

    def __init__(self, database_url: str, *, reading: bool) -> None:
        self._url = database_url
        self._reading = reading
        self._freezes = threading.Event()
        self._thaws = threading.Event()

    async def __aenter__(self) -> "Frozen":
        self._running = asyncio.get_running_loop().run_in_executor(None, self._run)
        await asyncio.to_thread(self._freezes.wait)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._thaws.set()
        await asyncio.wait({self._running})

    async def thaw(self) -> None:
        """Let it go on; raises what it then runs into."""
        self._thaws.set()
        await self._running

    def _run(self) -> None:
        try:
            asyncio.run(self._claim())
        finally:
            self._freezes.set()

    async def _claim(self) -> None:
        async with opened(self._url) as engine:
            if self._reading:
                _before_reading(engine, self._freeze)
            async with SqlOutbox(engine, SystemClock()).claim(100) as claim:
                self._freeze()
                for row in claim.rows:
                    claim.done(row)

    def _freeze(self) -> None:
        self._freezes.set()
        self._thaws.wait()


def _before_reading(engine: AsyncEngine, freeze: Callable[[], None]) -> None:
    """Freeze once the statement that reads rows is sent, and none of them is read."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def begins(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "body" in statement:
            asyncio.get_running_loop().call_soon(freeze)


@pytest.fixture
async def url(postgres_dsn: str) -> str:
    return postgres_dsn.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
async def engine(url: str) -> AsyncIterator[AsyncEngine]:
    async with database(url) as engine:
        yield engine


@pytest.fixture
async def writer(nats_server: NatsServer, url: str) -> AsyncIterator[EventService]:
    async with service(nats_server.url, url, relay=False) as events:
        yield events


@pytest.mark.parametrize("reading", [False, True], ids=["publishes", "reads"])
async def test_a_relay_that_is_frozen_loses_its_lanes_and_removes_nothing_later(
    engine: AsyncEngine,
    writer: EventService,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    reading: bool,
) -> None:
    monkeypatch.setattr(sql_outbox, "FROZEN", "1s")
    count, size = MORE_THAN_SOCKETS_BUFFER
    async with session_of(engine) as session, session.begin(), writer.transaction(session):
        for number in range(count):
            await writer.emit(Paid(account="one lane", number=number, filler="x" * size))
    other = SqlOutbox(engine, SystemClock())

    async def gets_them() -> bool:
        async with other.claim(1) as claim:
            return bool(claim.rows)

    async with Frozen(url, reading=reading) as frozen:
        await until(gets_them, "the other relay gets nothing", BEFORE_THE_DEFAULT)
        with pytest.raises(StoreError):
            await frozen.thaw()

    assert len(await waiting(engine)) == count
