"""The inbox in a SQL database: a listener's effects and its mark, in one transaction."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import Insert, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from eventbus.clock import Clock
from eventbus.errors import AlreadyHandled, StoreError
from eventbus.stores.sql.engine import reading, translated
from eventbus.stores.sql.tables import inbox

__all__ = ("SqlInbox", "TakePart", "check_inbox", "prune_inbox")

TakePart: TypeAlias = Callable[[AsyncSession], AbstractAsyncContextManager[None]]
"""Lets the emits of a block take part in the transaction of a session."""
_c = inbox.c


class SqlInbox:
    """Runs a listener in a transaction, which ends with the mark of its event.

    A redelivery finds the mark and doesn't run the listener. Of two that run at the same time one
    commits; the other's mark is refused, so all it did is rolled back. What the listener emits
    goes to the outbox, in the same transaction.

    Args:
        engine: The database, with the tables of the stores and those of the listener.
        durable: The listener's.
        take_part: Lets emits take part in the transaction.
        clock: Stamps the marks.
        again: The durable of a replay that handles also what is marked, each once: it leaves
            marks of its own.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        durable: str,
        *,
        take_part: TakePart,
        clock: Clock,
        again: str = "",
    ) -> None:
        self._engine = engine
        self._reading = reading(engine)
        self._durable = durable
        self._again = again
        self._take_part = take_part
        self._clock = clock
        self._mark = _insertion(engine.dialect.name)

    async def once(self, id: str, run: Callable[[AsyncSession], Awaitable[None]]) -> None:
        """Run the listener in a session's transaction, unless it has handled the event before.

        Raises:
            AlreadyHandled: It has.
            StoreError: The database can't be asked, or the table of marks isn't there.
        """
        if await self._is_marked(id):
            raise AlreadyHandled
        async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
            async with self._take_part(session):
                await run(session)
            await self._write(session, id)

    @property
    def _own(self) -> str:
        return self._again or self._durable

    async def _is_marked(self, id: str) -> bool:
        query = select(_c.id).where(_c.durable == self._own, _c.id == id)
        with translated("the inbox"):
            async with self._reading.connect() as connection:
                return await connection.scalar(query) is not None

    async def _write(self, session: AsyncSession, id: str) -> None:
        mark = {"durable": self._own, "id": id, "handled_at": self._clock.now()}
        with translated("the inbox"):
            result = await session.execute(self._mark.returning(_c.id), mark)
            written = result.scalar_one_or_none() is not None
            if self._again:  # whatever the listener's own was
                await session.execute(self._mark, {**mark, "durable": self._durable})
        if not written:  # the other one has committed meanwhile
            raise AlreadyHandled


def _insertion(dialect: str) -> Insert:
    made = postgresql.insert(inbox) if dialect == "postgresql" else sqlite.insert(inbox)
    return made.on_conflict_do_nothing()


async def check_inbox(engine: AsyncEngine) -> None:
    """Ask for the table of marks.

    Raises:
        StoreError: It isn't there, or the database can't be asked now.
    """
    try:
        with translated("the inbox"):
            async with reading(engine).connect() as connection:
                await connection.execute(select(_c.id).limit(1))
    except StoreError as exc:
        raise StoreError(
            f"{exc}; 'eventbus store init' makes the tables, in the database of EVENTBUS_STORE_URL"
        ) from exc


async def prune_inbox(engine: AsyncEngine, before: datetime) -> int:
    """Remove the marks of what was handled before a time; return how many.

    Raises:
        StoreError: The database can't be asked now.
    """
    with translated("the inbox"):
        async with engine.begin() as connection:
            return (await connection.execute(delete(inbox).where(_c.handled_at < before))).rowcount
