"""nats-outbox: events staged in its transaction, and its polling relay."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import nats
from nats_outbox.core.models import Base
from nats_outbox.core.outbox import OutboxTransaction
from nats_outbox.publishers.nats_publisher import NatsPublisher
from nats_outbox.relay.polling import PollingRelay
from nats_outbox.settings import OutboxSettings
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from bench.load import SUBJECT
from bench.outboxes.cases import Places
from bench.peer import add_stream, order_of

__all__ = ("OUTBOX",)

FETCHED = 1000
"""The most that it takes."""
POLL = 0.01
"""Its own is 1 s."""


class NatsOutbox:
    """As its relay command does it, without a log line for each event."""

    driver = "asyncpg"
    waiting = "SELECT 1 FROM outbox_events WHERE status = 'pending' LIMIT 1"
    relays = True

    @asynccontextmanager
    async def opened(self, places: Places) -> AsyncGenerator[None]:
        """Make its tables and the stream."""
        async with places.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await add_stream(places.server)
        self.places = places
        yield

    async def store(self, session: AsyncSession, numbers: Sequence[int]) -> None:
        """Stage events, and add them to the session, as documented for one that has begun."""
        transaction = OutboxTransaction(session)
        for number in numbers:
            order = order_of(number)
            transaction.publish_event(
                SUBJECT, order.model_dump(mode="json"), aggregate_id=order.order_id
            )
        await transaction._flush_events()

    @asynccontextmanager
    async def relaying(self) -> AsyncGenerator[None]:
        """Run its relay."""
        places = self.places
        settings = OutboxSettings(
            database_url=places.database,
            nats_url=places.server,
            batch_size=FETCHED,
            polling_interval=POLL,
        )
        client = await nats.connect(places.server)
        publisher = await NatsPublisher.from_nats_client(client)
        sessions = async_sessionmaker(places.engine, expire_on_commit=False)
        relay = PollingRelay(sessions, publisher, settings)
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.start())
            yield
            await relay.stop()
        await client.close()


logging.getLogger("nats_outbox").setLevel(logging.WARNING)
OUTBOX = NatsOutbox()
