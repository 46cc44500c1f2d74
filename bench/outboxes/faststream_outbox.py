"""faststream-outbox: `publish` in the session, and its relay to FastStream's NATS broker."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from faststream.nats import NatsBroker
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession

from bench.load import STREAM, SUBJECT
from bench.outboxes.cases import Places
from bench.peer import add_stream, order_of

__all__ = ("OUTBOX",)

QUEUE = "orders"
WORKERS = 16
FETCHED = 500
FLUSHED = 100


class FastStreamOutbox:
    """The relay of its documentation: a publisher stacked on a subscriber."""

    driver = "asyncpg"
    waiting = "SELECT 1 FROM outbox LIMIT 1"
    relays = True

    @asynccontextmanager
    async def opened(self, places: Places) -> AsyncGenerator[None]:
        """Make its table and the stream."""
        metadata = MetaData()
        table = make_outbox_table(metadata, table_name="outbox")
        async with places.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await add_stream(places.server)
        self.server = places.server
        self.outbox = OutboxBroker(places.engine, outbox_table=table, logger=None)
        yield

    async def store(self, session: AsyncSession, numbers: Sequence[int]) -> None:
        """Publish into the session; more than one in one call."""
        orders = [order_of(number) for number in numbers]
        if len(orders) == 1:
            await self.outbox.publish(orders[0], queue=QUEUE, session=session)
        else:
            await self.outbox.publish_batch(*orders, queue=QUEUE, session=session)

    @asynccontextmanager
    async def relaying(self) -> AsyncGenerator[None]:
        """Run both brokers."""
        broker = NatsBroker(self.server, logger=None)

        @broker.publisher(SUBJECT, stream=STREAM)
        @self.outbox.subscriber(
            QUEUE,
            max_workers=WORKERS,
            fetch_batch_size=FETCHED,
            terminal_flush_batch_size=FLUSHED,
        )
        async def relay(body: dict) -> dict:
            return body

        await broker.start()
        await self.outbox.start()
        yield
        await self.outbox.stop()
        await broker.stop()


logging.getLogger("faststream").setLevel(logging.WARNING)
OUTBOX = FastStreamOutbox()
