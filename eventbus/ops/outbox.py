"""The outbox: how much waits in it, what was set aside, and what becomes of that."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from eventbus.clock import SystemClock
from eventbus.ops.connect import connected
from eventbus.relay.batch import Relaying
from eventbus.relay.relay import Relay
from eventbus.settings import Settings
from eventbus.stores.base import OutboxState, Row
from eventbus.stores.choice import engine_of
from eventbus.telemetry.signals import Observers

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ("OutboxStatus", "drain", "prune", "retry", "status")


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How an outbox is."""

    state: OutboxState
    quarantined: tuple[Row, ...]
    """The oldest rows that were set aside."""


async def status(settings: Settings, *, limit: int = 100) -> OutboxStatus:
    """Return how an outbox is, with up to ``limit`` of the rows that were set aside.

    Raises:
        SettingsError, StoreError: The database can't be used, or not now.
    """
    async with _opened(settings) as engine:
        from eventbus.stores.sql import desk
        from eventbus.stores.sql.outbox import SqlOutbox

        state = await SqlOutbox(engine, SystemClock()).state()
        return OutboxStatus(state, tuple(await desk.quarantined(engine, limit)))


async def retry(settings: Settings, sequences: Sequence[int] | None) -> int:
    """Have rows that were set aside tried again, all where None; return how many.

    Raises:
        SettingsError, StoreError: The database can't be used, or not now.
    """
    async with _opened(settings) as engine:
        from eventbus.stores.sql import desk

        return await desk.release(engine, sequences)


async def prune(settings: Settings, *, older_than: float) -> int:
    """Remove rows that were set aside so many seconds ago, for good; return how many.

    Raises:
        SettingsError, StoreError: The database can't be used, or not now.
    """
    async with _opened(settings) as engine:
        from eventbus.stores.sql import desk

        return await desk.prune(engine, SystemClock().now() - timedelta(seconds=older_than))


async def drain(settings: Settings) -> int:
    """Relay what waits now, whoever emitted it; return how many events went.

    Raises:
        SettingsError, StoreError: The database can't be used, or not now.
        DriverError: The server takes nothing now.
    """
    clock = SystemClock()
    async with _opened(settings) as engine, connected(settings) as driver:
        from eventbus.stores.sql.outbox import SqlOutbox

        outbox = SqlOutbox(engine, clock)
        relaying = Relaying(driver, settings.subjects, Observers(), clock)
        try:
            await outbox.prepare()
            return await Relay(outbox, relaying).drain()
        finally:
            outbox.close()


@asynccontextmanager
async def _opened(settings: Settings) -> "AsyncGenerator[AsyncEngine]":
    engine = engine_of(settings.store_url)
    try:
        yield engine
    finally:
        await engine.dispose()
