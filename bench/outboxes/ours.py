"""Ours: `emit` in `events.transaction`, and the relay in the service."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from bench.contestants.ours import MAX_BYTES, OrderPlaced, event_of
from bench.outboxes.cases import Places
from eventbus import EventService, Settings
from eventbus.stores.sql.engine import create_tables
from eventbus.telemetry.metrics import Metrics

__all__ = ("OUTBOX", "Ours")


class Ours:
    """All that a service usually has on; tracing off."""

    waiting = "SELECT 1 FROM eventbus_outbox LIMIT 1"
    relays = True

    def __init__(self, driver: str) -> None:
        self.driver = driver

    @asynccontextmanager
    async def opened(self, places: Places) -> AsyncGenerator[None]:
        """Make the tables, and start a service that doesn't relay."""
        await create_tables(places.engine)
        self.places = places
        async with self.service(relay=False) as self.events:
            yield

    def service(self, *, relay: bool) -> EventService:
        """Return a service."""
        settings = Settings(
            nats_url=self.places.server,
            store_url=self.places.database,
            max_bytes=MAX_BYTES,
            tracing="off",
        )
        events = EventService("bench", settings=settings, relay=relay)
        events.observe(Metrics(lambda name: name in events.registry))
        events.registry.register(OrderPlaced)
        return events

    async def store(self, session: AsyncSession, numbers: Sequence[int]) -> None:
        """Emit one after the other."""
        async with self.events.transaction(session):
            for number in numbers:
                await self.events.emit(event_of(number))

    @asynccontextmanager
    async def relaying(self) -> AsyncGenerator[None]:
        """Run a service with a relay."""
        async with self.service(relay=True):
            yield


OUTBOX = Ours("asyncpg")
