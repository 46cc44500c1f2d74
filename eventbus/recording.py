"""The event store of a service: every event recorded by a durable listener, and found again."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Self, cast

from eventbus.batch import Batch, BatchContext
from eventbus.declaration import subscription
from eventbus.event import Event, UnknownEvent
from eventbus.middleware.base import Context
from eventbus.retry import Retry
from eventbus.stores.choice import engine_of
from eventbus.stores.history import StoredEvent, Which
from eventbus.subject import check_pattern
from eventbus.subscription import Subscription

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from eventbus.settings import Settings
    from eventbus.stores.sql.history import SqlHistory
    from eventbus.subscribing import AllOptions

__all__ = ("OWNER", "EventStore", "stored_of")

OWNER = "eventbus"
"""The service that its durable belongs to: whichever processes record, they share the work."""
LISTENER = "store"
PATIENT = Retry(attempts=1_000_000, start=1, cap=25)
"""What can't be stored now is stored later: nothing may be missing."""


class EventStore:
    """Every event in a table of the store's database: ``EVENTBUS_STORE_ENABLED``.

    Append only, each event once by its id. It is as complete as the durable ``eventbus__store``,
    which begins with what the stream holds when it is first made. Opened when it is first asked.
    """

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._engine: AsyncEngine | None = None
        self._history: SqlHistory | None = None

    async def query(
        self,
        *,
        name: str | None = None,
        key: str | None = None,
        correlation_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[StoredEvent]:
        """Yield stored events in the order in which they were stored.

        Args:
            name: A name or a pattern, ``user.*``.
            key: The ordering key.
            correlation_id: The correlation.
            since: Emitted at this time or later.
            until: Emitted before this time.
            limit: How many at most.

        Raises:
            SubjectError: ``name`` is neither.
            StoreError: The database can't be asked, or the table isn't there.
        """
        if name is not None:
            check_pattern(name)
        which = Which(name, key, correlation_id, since, until)
        async for one in self._opened().query(which, limit):
            yield one

    async def append(self, *rows: StoredEvent) -> int:
        """Store what isn't there yet; return how many that were.

        Raises:
            StoreError: The database can't be asked, or the table isn't there.
        """
        return await self._opened().append(rows)

    def subscription(self) -> Subscription:
        """Return the listener that records."""

        async def store(events: list[UnknownEvent], context: BatchContext[UnknownEvent]) -> None:
            pairs = zip(events, context.items, strict=True)
            await self.append(*(stored_of(event, about) for event, about in pairs))

        options: AllOptions[UnknownEvent] = {
            "name": LISTENER,
            "batch": Batch(max=500, max_wait="200ms"),
            "start": "all",
            "retry": PATIENT,
        }
        return subscription(OWNER, ">", store, options)

    async def __aenter__(self) -> Self:
        """Do nothing: the database is opened when it is first needed."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the database."""
        if self._engine is not None:
            from eventbus.stores.sql.engine import dispose

            await dispose(self._engine)
            self._engine = self._history = None

    def _opened(self) -> "SqlHistory":
        if self._history is None:
            self._engine = engine_of(self._settings.store_url)
            from eventbus.stores.sql.history import SqlHistory

            self._history = SqlHistory(self._engine, self._settings.store_table)
        return self._history


def stored_of(event: Event, context: Context) -> StoredEvent:
    """Return the row of an event that no class was asked about."""
    return StoredEvent(
        id=context.id,
        name=context.name,
        version=context.version,
        key=context.key,
        source=context.source,
        correlation_id=context.correlation_id,
        causation_id=context.causation_id,
        time=context.time,
        headers={**context.headers, **context.trace},
        data=cast("UnknownEvent", event).data,
        stream=context.stream,
        stream_sequence=context.sequence,
    )
