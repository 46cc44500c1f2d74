"""The event store in a SQL database: append only, each event once."""

import json
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncEngine

from eventbus.stores.history import StoredEvent, Which
from eventbus.stores.sql.engine import reading, translated
from eventbus.stores.sql.tables import events
from eventbus.subject import is_pattern, matches

__all__ = ("SqlHistory",)

PAGE = 500


class SqlHistory:
    """Appends events and finds them again.

    Args:
        engine: The database; its tables are there.
        table: The table's name.
    """

    def __init__(self, engine: AsyncEngine, table: str) -> None:
        self._engine = engine
        self._reading = reading(engine)
        self._table = events(table)

    async def append(self, rows: Sequence[StoredEvent]) -> int:
        """Store events that aren't there yet, in one transaction; return how many that were.

        Raises:
            StoreError: The database can't be asked, or the table isn't there.
        """
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        made = dialect.insert(self._table).on_conflict_do_nothing()
        values = [_values(row) for row in rows]
        with translated("the event store"):
            async with self._engine.begin() as connection:
                stored = await connection.execute(made.returning(self._table.c.id), values)
                return len(stored.all())

    async def query(self, which: Which, limit: int | None = None) -> AsyncIterator[StoredEvent]:
        """Yield events in the order in which they were stored, read page by page.

        Raises:
            StoreError: The database can't be asked now.
        """
        after, count = 0, 0
        while limit is None or count < limit:
            page = await self._page(which, after)
            for row in page:
                if which.name is not None and not matches(which.name, str(row["name"])):
                    continue
                yield _event(row)
                count += 1
                if count == limit:
                    return
            if len(page) < PAGE:
                return
            after = page[-1]["sequence"]

    async def _page(self, which: Which, after: int) -> Sequence[RowMapping]:
        columns = self._table.c
        query = select(self._table).where(columns.sequence > after, *self._conditions(which))
        with translated("the event store"):
            async with self._reading.connect() as connection:
                found = await connection.execute(query.order_by(columns.sequence).limit(PAGE))
                return found.mappings().all()

    def _conditions(self, which: Which) -> list[ColumnElement[bool]]:
        columns = self._table.c
        found: list[ColumnElement[bool]] = []
        if which.name is not None:
            found.append(_named(columns.name, which.name))
        if which.key is not None:
            found.append(columns.key == which.key)
        if which.correlation_id is not None:
            found.append(columns.correlation_id == which.correlation_id)
        if which.since is not None:
            found.append(columns.time >= which.since)
        if which.until is not None:
            found.append(columns.time < which.until)
        return found


def _named(column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Return what an index can tell of a pattern; `matches` tells the rest."""
    if not is_pattern(pattern):
        return column == pattern
    fixed = pattern[: min(at for at in (pattern.find("*"), pattern.find(">")) if at >= 0)]
    return column.startswith(fixed, autoescape=True)


def _values(row: StoredEvent) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "key": row.key,
        "source": row.source,
        "correlation_id": row.correlation_id,
        "causation_id": row.causation_id,
        "time": row.time,
        "headers": json.dumps(dict(row.headers)),
        "body": json.dumps(row.data, ensure_ascii=False).encode(),
        "stream": row.stream,
        "stream_sequence": row.stream_sequence,
    }


def _event(row: RowMapping) -> StoredEvent:
    return StoredEvent(
        id=row["id"],
        name=row["name"],
        version=row["version"],
        key=row["key"],
        source=row["source"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        time=row["time"],
        headers=json.loads(row["headers"]),
        data=json.loads(row["body"]),
        stream=row["stream"],
        stream_sequence=row["stream_sequence"],
    )
