"""Read what is stored at the end of the demo: events, dead letters, durables, the audit trail."""

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from eventbus import deadletter
from eventbus import headers as h
from eventbus.cli.demo.account import Consumer, DeadLetter, Holdings, Recorded
from eventbus.drivers.jetstream.admin import Admin, Stored
from eventbus.subject import Subjects

__all__ = ("consumers_of", "holdings_of")

_LONG_AGO = datetime.fromtimestamp(0, UTC)


async def holdings_of(admin: Admin, subjects: Subjects, audit: Path) -> Holdings:
    """Read the streams of a namespace and the audit trail whole; raises as `Admin` does."""
    events = [
        _recorded(one)
        async for one in admin.messages(subjects.stream, subject=subjects.event(">"))
    ]
    dead = [_dead_letter(one) async for one in admin.messages(subjects.dead_letter_stream)]
    audited = await asyncio.to_thread(_audited, audit)
    ticks = Counter(
        [
            h.lowered(one.message.headers).get(h.TYPE, "unknown")
            async for one in admin.messages(subjects.later_stream, subjects.tick("*", "*"))
        ]
    )
    return Holdings(tuple(events), tuple(dead), await consumers_of(admin), audited, ticks)


def _audited(database: Path) -> frozenset[str]:
    """Return the ids in the audit trail, each of which stands there once: it is the key."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return frozenset(id for (id,) in connection.execute("SELECT id FROM events"))


async def consumers_of(admin: Admin) -> tuple[Consumer, ...]:
    """Return the durables and how far they are; raises as `Admin` does."""
    return tuple(
        Consumer(
            durable=one.durable,
            service=one.service,
            listener=one.listener,
            takes=one.takes,
            unsettled=one.pending + one.ack_pending,
        )
        for one in await admin.consumers()
    )


def _recorded(stored: Stored) -> Recorded:
    headers = h.lowered(stored.message.headers)
    id = headers.get(h.ID, "")
    return Recorded(
        id=id,
        name=headers.get(h.TYPE, "unknown"),
        source=headers.get(h.SOURCE, ""),
        subject=stored.message.subject,
        correlation_id=headers.get(h.CORRELATION_ID, id),
        causation_id=headers.get(h.CAUSATION_ID),
        time=h.parse_time(headers.get(h.TIME, "")) or _LONG_AGO,
    )


def _dead_letter(stored: Stored) -> DeadLetter:
    headers = h.lowered(stored.message.headers)
    failure = deadletter.read(stored.message)
    return DeadLetter(
        id=headers.get(h.ID, ""),
        name=headers.get(h.TYPE, "unknown"),
        durable=f"{failure.service}__{failure.listener}",
        reason=failure.reason.value,
        error=failure.error_message,
    )
