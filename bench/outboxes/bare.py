"""No outbox: a row of the same size as ours, inserted by hand."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from bench.contestants.ours import event_of
from bench.outboxes.cases import Places
from eventbus.clock import SystemClock
from eventbus.stores.sql.engine import create_tables
from eventbus.stores.sql.tables import outbox

__all__ = ("OUTBOX", "Bare")

INSERT = insert(outbox)


class Bare:
    """`session.execute(insert(table), row)`, with the body that ours has."""

    waiting = "SELECT 1 FROM eventbus_outbox LIMIT 1"
    relays = False

    def __init__(self, driver: str) -> None:
        self.driver = driver
        self.row: dict[str, object] = {
            "lane": 1,
            "id": "0" * 36,
            "name": "order.placed",
            "source": "bench",
            "key": "o-00000001",
            "subject": "events.order.placed",
            "headers": '{"' + "x" * 430 + '": ""}',
            "publish_at": None,
            "created_at": SystemClock().now(),
        }

    @asynccontextmanager
    async def opened(self, places: Places) -> AsyncGenerator[None]:
        """Make the tables."""
        await create_tables(places.engine)
        yield

    async def store(self, session: AsyncSession, numbers: Sequence[int]) -> None:
        """Insert one after the other."""
        for number in numbers:
            body = event_of(number).model_dump_json().encode()
            await session.execute(INSERT, {**self.row, "body": body})

    @asynccontextmanager
    async def relaying(self) -> AsyncGenerator[None]:
        """Relay nothing."""
        yield


OUTBOX = Bare("asyncpg")
