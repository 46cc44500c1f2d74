"""An event as a row of the outbox, and back."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache

from sqlalchemy import Insert, func, insert

from eventbus import headers as h
from eventbus.envelope import Message
from eventbus.stores.base import Row, lane_of
from eventbus.stores.sql.tables import LANES, outbox

__all__ = ("CHANNEL", "READ", "insertion", "row_of", "values_of")

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


@cache
def insertion(dialect: str, *, notify: bool = True) -> Insert:
    """Return the statement that stores a row, and on PostgreSQL wakes the relays at the commit.

    One statement for both, so that an emit costs one round trip.
    """
    if dialect == "postgresql" and notify:
        return insert(outbox).returning(_columns.sequence, func.pg_notify(CHANNEL, ""))
    return insert(outbox).returning(_columns.sequence)


def values_of(message: Message, *, publish_at: datetime | None = None) -> dict[str, object]:
    """Return the columns of a message that waits."""
    headers = message.headers
    return {
        "lane": lane_of(message, LANES),
        "id": message.id or "",
        "name": headers.get(h.TYPE, ""),
        "source": h.unquoted(headers.get(h.SOURCE, "")),
        "key": h.ordering_key(headers) or None,
        "subject": message.subject,
        "headers": json.dumps(dict(headers)),
        "body": message.body,
        "publish_at": publish_at,
        "created_at": h.parse_time(headers.get(h.TIME, "")),
        "tries": 0,
    }


def row_of(record: Mapping[str, object]) -> Row:
    """Return the row that a record of the table holds."""
    headers: dict[str, str] = json.loads(str(record["headers"]))
    body, publish_at, created = record["body"], record["publish_at"], record["created_at"]
    assert isinstance(body, bytes), "a body that isn't bytes"
    assert isinstance(created, datetime), "a row without its time"
    return Row(
        sequence=int(str(record["sequence"])),
        message=Message(str(record["subject"]), headers, body, str(record["id"]) or None),
        created_at=created,
        tries=int(str(record["tries"])),
        publish_at=publish_at if isinstance(publish_at, datetime) else None,
        reason=str(record["reason"] or ""),
    )
