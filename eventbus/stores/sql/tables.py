"""The tables of the stores as one SQLAlchemy `MetaData`, for ``eventbus store init`` and Alembic.

In an ``env.py`` of Alembic: ``target_metadata = [Base.metadata, tables.metadata]``.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

from eventbus.stores.sql.columns import BigId, UtcTime

__all__ = ("EVENTS", "KEY", "LANES", "events", "inbox", "lanes", "metadata", "outbox")

EVENTS = "eventbus_events"
"""The name of the event store's table where the settings name no other."""
KEY = 512
"""The longest part of an ordering key that is kept; lanes are chosen by all of it."""
LANES = 16
"""How many relays can work at once; the events of one key are always in the same lane."""
_ID = 128
_NAME = 255

metadata = MetaData()

outbox = Table(
    "eventbus_outbox",
    metadata,
    Column("sequence", BigId, primary_key=True, autoincrement=True),
    Column("lane", SmallInteger, nullable=False),
    Column("id", String(_ID), nullable=False),
    Column("name", String(_NAME), nullable=False),
    Column("source", String(64), nullable=False),
    Column("key", Text),
    Column("subject", Text, nullable=False),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("publish_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("quarantined_at", UtcTime),
    Column("reason", Text),
    Index("ix_eventbus_outbox_lane", "lane", "sequence"),
    sqlite_autoincrement=True,  # a number is never given twice
)
"""Events that wait for their relay; a row is removed once the stream has its event.

``publish_at`` is set for what the server has to keep until a time. A quarantined
row is one that can't go; ``reason`` says why.
"""

lanes = Table(
    "eventbus_outbox_lanes",
    metadata,
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
)
"""One row for each lane: whoever has locked it relays that lane's events."""

inbox = Table(
    "eventbus_inbox",
    metadata,
    Column("durable", String(_NAME), primary_key=True),
    Column("id", String(_ID), primary_key=True),
    Column("handled_at", UtcTime, nullable=False),
    Index("ix_eventbus_inbox_handled_at", "handled_at"),
)
"""What a listener has handled, marked in the transaction that holds its effects."""


def events(name: str = EVENTS, into: MetaData = metadata) -> Table:
    """Return the table of the event store, under the name that the settings give it."""
    if name in into.tables:
        return into.tables[name]
    return Table(
        name,
        into,
        Column("sequence", BigId, primary_key=True, autoincrement=True),
        Column("id", String(_ID), nullable=False),
        Column("name", String(_NAME), nullable=False),
        Column("version", Integer, nullable=False),
        Column("key", Text),
        Column("source", String(64), nullable=False),
        Column("correlation_id", String(_ID), nullable=False),
        Column("causation_id", String(_ID)),
        Column("time", UtcTime, nullable=False),
        Column("headers", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("stream", String(_NAME), nullable=False),
        Column("stream_sequence", BigInteger, nullable=False),
        Index(f"ux_{name}_id", "id", unique=True),
        Index(f"ix_{name}_name", "name", "time"),
        Index(f"ix_{name}_key", "key", "time"),
        Index(f"ix_{name}_correlation", "correlation_id"),
        Index(f"ix_{name}_time", "time"),
    )


events()
