"""`Trail`: the table of events, each under its id, in a SQLite database."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from eventbus import Context, Event, UnknownEvent
from eventbus.errors import SettingsError

__all__ = ("Trail",)

T = TypeVar("T")

_TABLE = """
CREATE TABLE IF NOT EXISTS events (
    id             TEXT PRIMARY KEY,
    name           TEXT NOT NULL,
    version        INTEGER NOT NULL,
    source         TEXT NOT NULL,
    key            TEXT,
    correlation_id TEXT NOT NULL,
    causation_id   TEXT,
    time           TEXT NOT NULL,  -- UTC, ISO 8601
    stream         TEXT NOT NULL,
    sequence       INTEGER NOT NULL,
    data           TEXT NOT NULL   -- the payload, JSON
)
"""
_BY_CORRELATION = "CREATE INDEX IF NOT EXISTS events_correlation ON events (correlation_id, time)"
_ADD = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING"


class Trail:
    """The audit trail; its one connection lives in a thread of its own, SQLite blocks."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._database: sqlite3.Connection | None = None

    async def open(self, file: Path) -> None:
        """Open the database, and make what is missing of it.

        Raises:
            SettingsError: It can't be opened there.
        """
        assert self._thread is None, "the trail is open"
        self._thread = ThreadPoolExecutor(1, "audit")
        try:
            self._database = await self._do(lambda: _opened(file))
        except (OSError, sqlite3.Error) as exc:
            await self.close()
            raise SettingsError(
                f"EVENTBUS_AUDIT_DATABASE={file}: can't open the audit database there ({exc}); "
                "set it to a file in a folder that can be written"
            ) from exc

    async def close(self) -> None:
        """Close the database; does nothing where it isn't open."""
        if self._database is not None:
            await self._do(self._database.close)
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = self._database = None

    async def add(self, event: Event, context: Context) -> None:
        """Keep an event, on disk when this returns; one that is kept already is left as it is."""
        row = (
            context.id,
            context.name,
            context.version,
            context.source,
            context.key,
            context.correlation_id,
            context.causation_id,
            context.time.isoformat(),
            context.stream,
            context.sequence,
            _payload(event),
        )
        database = self._database
        assert database is not None, "the trail isn't open"
        await self._do(lambda: _add(database, row))

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _opened(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Whoever else writes is brief; longer than this, the event is better off waiting on the server.
    database = sqlite3.connect(file, timeout=1, isolation_level=None)
    # Readers look while we write; a commit is on disk, since the event is acknowledged after it.
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(_TABLE)
    database.execute(_BY_CORRELATION)
    return database


def _add(database: sqlite3.Connection, row: tuple[object, ...]) -> None:
    database.execute(_ADD, row)


def _payload(event: Event) -> str:
    # This service declares no events, so that it keeps also the fields that nobody here knows.
    if isinstance(event, UnknownEvent):
        return json.dumps(event.data, ensure_ascii=False, separators=(",", ":"))
    return event.event_body().decode()
