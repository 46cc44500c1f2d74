"""The database of outbox, inbox and event store: making its tables, filling the event store."""

from collections.abc import AsyncIterator

from eventbus import codec
from eventbus.drivers.jetstream.admin import Stored
from eventbus.errors import CodecError, SchemaError
from eventbus.event import UnknownEvent
from eventbus.ops.connect import reading
from eventbus.recording import EventStore
from eventbus.registry import Registry
from eventbus.settings import Settings
from eventbus.stores.choice import engine_of
from eventbus.stores.history import StoredEvent
from eventbus.subject import Subjects

__all__ = ("init", "rebuild")

PORTION = 500


async def init(settings: Settings) -> tuple[str, ...]:
    """Create the tables that are missing, and return their names; what is there stays as it is.

    Raises:
        SettingsError: The stores don't work with that database, or a package is missing.
        StoreError: It can't be reached, or refuses.
    """
    engine = engine_of(settings.store_url)
    from eventbus.stores.sql.engine import create_tables
    from eventbus.stores.sql.tables import events

    try:
        events(settings.store_table)
        return await create_tables(engine)
    finally:
        await engine.dispose()


async def rebuild(settings: Settings) -> tuple[int, int]:
    """Record what the stream holds and the event store lacks.

    Returns how many events were read, and how many of them were missing. A message that isn't an
    event is passed over.

    Raises:
        SettingsError, StoreError: As `init`.
        DriverError: The stream can't be read.
    """
    read = missing = 0
    async with reading(settings) as admin, EventStore(settings) as store:
        portion: list[StoredEvent] = []
        stream, subjects = settings.subjects.stream, settings.subjects
        async for one in _rows(admin.messages(stream, f"{subjects.namespace}.>"), subjects):
            portion.append(one)
            read += 1
            if len(portion) == PORTION:
                missing += await store.append(*portion)
                portion = []
        if portion:
            missing += await store.append(*portion)
    return read, missing


async def _rows(messages: AsyncIterator[Stored], subjects: Subjects) -> AsyncIterator[StoredEvent]:
    """Yield the events among messages; no class is asked, so that nothing of them is lost."""
    nothing = Registry()
    async for one in messages:
        name = subjects.event_name(one.message.subject) or ""
        try:
            envelope = codec.decode(one.message, name, nothing, received=one.time, unknown=True)
        except (CodecError, SchemaError):
            continue
        if not isinstance(envelope.event, UnknownEvent):
            continue
        yield StoredEvent(
            id=envelope.id,
            name=envelope.name,
            version=envelope.version,
            key=envelope.key,
            source=envelope.source,
            correlation_id=envelope.correlation_id,
            causation_id=envelope.causation_id,
            time=envelope.time,
            headers={**envelope.headers, **envelope.trace},
            data=envelope.event.data,
            stream=one.stream,
            stream_sequence=one.sequence,
        )
