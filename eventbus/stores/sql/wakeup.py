"""How a relay learns that rows were committed: LISTEN on PostgreSQL, a look on SQLite."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventbus.stores.sql.rows import CHANNEL

__all__ = ("LOOK_EVERY", "watch")

LOOK_EVERY = 0.02
"""Seconds between looks at SQLite's change counter, which cost some 0.1 ms each."""
ALIVE_EVERY = 10.0
"""Seconds after which a connection that hears nothing is asked whether it lives."""


class _Psycopg(Protocol):
    async def set_autocommit(self, value: bool) -> None: ...
    async def execute(self, query: str) -> object: ...
    def notifies(self, *, timeout: float) -> "_Notices": ...


class _Notices(Protocol):
    def __aiter__(self) -> "_Notices": ...
    async def __anext__(self) -> object: ...


class _Asyncpg(Protocol):
    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None: ...
    async def execute(self, query: str) -> object: ...


async def watch(engine: AsyncEngine, wake: Callable[[], None]) -> None:
    """Call ``wake`` after each commit that may have brought rows, until cancelled.

    Raises:
        SQLAlchemyError, OSError: The connection broke.
    """
    async with engine.connect() as connection:
        try:
            match engine.dialect.driver:
                case "psycopg":
                    await _psycopg(connection, wake)
                case "asyncpg":
                    await _asyncpg(connection, wake)
                case _:
                    await _sqlite(connection, wake)
        finally:
            # It listens, which nobody else in the pool expects.
            await connection.invalidate()


async def _psycopg(connection: AsyncConnection, wake: Callable[[], None]) -> None:
    raw = await connection.get_raw_connection()
    driver = cast("_Psycopg", raw.driver_connection)
    await driver.set_autocommit(True)
    await driver.execute(f"LISTEN {CHANNEL}")
    wake()
    while True:
        async for _ in driver.notifies(timeout=ALIVE_EVERY):
            wake()
        await driver.execute("SELECT 1")


async def _asyncpg(connection: AsyncConnection, wake: Callable[[], None]) -> None:
    raw = await connection.get_raw_connection()
    driver = cast("_Asyncpg", raw.driver_connection)
    await driver.add_listener(CHANNEL, lambda *_: wake())
    wake()
    while True:
        await asyncio.sleep(ALIVE_EVERY)
        await driver.execute("SELECT 1")


async def _sqlite(connection: AsyncConnection, wake: Callable[[], None]) -> None:
    seen: object = None
    while True:
        now = await connection.scalar(text("PRAGMA data_version"))
        await connection.rollback()
        if now != seen:
            seen = now
            wake()
        await asyncio.sleep(LOOK_EVERY)
