"""An event as a row of the outbox, and back."""

from datetime import datetime
from typing import TypeAlias

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Connection, Dialect, insert, literal_column
from sqlalchemy.engine.default import DefaultDialect

from eventbus import headers as h
from eventbus.envelope import Message
from eventbus.stores.base import Row, lane_of
from eventbus.stores.sql.columns import UtcTime
from eventbus.stores.sql.tables import LANES, outbox

__all__ = ("CHANNEL", "READ", "Insertion", "insertion", "row_of")

CHANNEL = "eventbus_outbox"
"""What PostgreSQL notifies on when a transaction that emitted commits."""

_columns = outbox.c
READ = (
    _columns.sequence,
    _columns.id,
    _columns.subject,
    _columns.headers,
    _columns.body,
    _columns.publish_at,
    _columns.created_at,
    _columns.tries,
    _columns.reason,
)
"""What `row_of` reads."""
Record: TypeAlias = tuple[
    int, str, str, str, bytes, datetime | None, datetime, int, str | None
]  # as READ
_HEADERS = TypeAdapter(dict[str, str])
"""With as little as this three times as fast as `json`."""
_WRITTEN = (
    "lane",
    "id",
    "name",
    "source",
    "key",
    "subject",
    "headers",
    "body",
    "publish_at",
    "created_at",
)


class Insertion:
    """The statement that stores a row, and on PostgreSQL wakes the relays at the commit.

    One statement for both, so that an emit costs one round trip. It is written once and handed to
    the driver as it is: going through SQLAlchemy's compiler costs as much as the rest of an emit.
    """

    def __init__(self, dialect: Dialect, *, notify: bool) -> None:
        wake: ColumnElement[object] = literal_column(f"pg_notify('{CHANNEL}', '')")
        also = (wake,) if notify and dialect.name == "postgresql" else ()
        statement = insert(outbox).returning(_columns.sequence, *also)
        self._sql = str(statement.compile(dialect=dialect, column_keys=_WRITTEN))
        self._time = UtcTime().dialect_impl(dialect).bind_processor(dialect)

    def run(
        self, connection: Connection, message: Message, publish_at: datetime | None = None
    ) -> int:
        """Store a message that waits, and return its place."""
        values = self._values(message, publish_at)
        return int(connection.exec_driver_sql(self._sql, values).scalar_one())

    def _values(self, message: Message, publish_at: datetime | None) -> tuple[object, ...]:
        headers = h.as_dict(message.headers)
        key = h.ordering_key(headers)
        created_at = h.parse_time(headers.get(h.TIME, ""))
        render = self._time
        return (
            lane_of(key or message.id or "", LANES),
            message.id or "",
            headers.get(h.TYPE, ""),
            h.unquoted(headers.get(h.SOURCE, "")),
            key or None,
            message.subject,
            _HEADERS.dump_json(headers).decode(),
            message.body,
            publish_at if render is None or publish_at is None else render(publish_at),
            created_at if render is None else render(created_at),
        )


_written: dict[tuple[str, str, bool], Insertion] = {}


def insertion(dialect: Dialect, *, notify: bool = True) -> Insertion:
    """Return the statement for a database and its driver; each is written once."""
    which = dialect.name, dialect.driver, notify
    found = _written.get(which)
    if found is None:
        found = _written[which] = Insertion(_by_place(dialect), notify=notify)
    return found


def _by_place(dialect: Dialect) -> Dialect:
    """Return the dialect with parameters by place: psycopg would sort named ones each time."""
    assert isinstance(dialect, DefaultDialect), "what every database of SQLAlchemy is"
    kind = type(dialect)
    return kind(paramstyle="format") if kind.default_paramstyle == "pyformat" else kind()


def row_of(record: Record) -> Row:
    """Return the row that a record of the table holds."""
    sequence, id, subject, headers, body, publish_at, created_at, tries, reason = record
    message = Message(subject, _HEADERS.validate_json(headers), body, id or None)
    return Row(sequence, message, created_at, tries, publish_at, reason or "")
