"""The outbox in a SQL database, as an operator works it."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from eventbus.stores.base import Row
from eventbus.stores.sql.engine import reading, translated
from eventbus.stores.sql.rows import READ, row_of
from eventbus.stores.sql.tables import outbox

__all__ = ("prune", "quarantined", "release")

_c = outbox.c
_SET_ASIDE = _c.quarantined_at.is_not(None)


async def quarantined(engine: AsyncEngine, limit: int = 100) -> list[Row]:
    """Return rows that were set aside, the oldest first.

    Raises:
        StoreError: The database can't be asked now.
    """
    query = select(*READ).where(_SET_ASIDE).order_by(_c.sequence).limit(limit)
    with translated("the outbox"):
        async with reading(engine).connect() as connection:
            return [row_of(tuple(one)) for one in await connection.execute(query)]


async def release(engine: AsyncEngine, sequences: Sequence[int] | None) -> int:
    """Have rows that were set aside tried again, all where None; return how many.

    They are behind the rows of their key that went meanwhile.

    Raises:
        StoreError: The database can't be asked now.
    """
    values = {"quarantined_at": None, "reason": None, "tries": 0}
    which = _among(sequences)
    with translated("the outbox"):
        async with engine.begin() as connection:
            return (await connection.execute(update(outbox).where(*which).values(values))).rowcount


async def prune(engine: AsyncEngine, before: datetime) -> int:
    """Remove rows that were set aside before a time, for good; return how many.

    Raises:
        StoreError: The database can't be asked now.
    """
    with translated("the outbox"):
        async with engine.begin() as connection:
            gone = delete(outbox).where(_SET_ASIDE, _c.quarantined_at < before)
            return (await connection.execute(gone)).rowcount


def _among(sequences: Sequence[int] | None) -> tuple[ColumnElement[bool], ...]:
    if sequences is None:
        return (_SET_ASIDE,)
    return (_SET_ASIDE, _c.sequence.in_(sequences))
