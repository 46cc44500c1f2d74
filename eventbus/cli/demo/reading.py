"""Read what the server holds at the end of the demo: events, dead letters, durables."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from eventbus import deadletter
from eventbus import headers as h
from eventbus.cli.demo.account import Consumer, DeadLetter, Recorded
from eventbus.drivers.jetstream.admin import Admin, Stored
from eventbus.subject import Subjects

__all__ = ("Holdings", "consumers_of", "holdings_of")

_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the server holds."""

    events: tuple[Recorded, ...]
    dead_letters: tuple[DeadLetter, ...]
    consumers: tuple[Consumer, ...]


async def holdings_of(admin: Admin, subjects: Subjects) -> Holdings:
    """Read the streams of a namespace whole; raises as `Admin` does."""
    events = [
        _recorded(one)
        async for one in admin.messages(subjects.stream, subject=subjects.event(">"))
    ]
    dead = [_dead_letter(one) async for one in admin.messages(subjects.dead_letter_stream)]
    return Holdings(tuple(events), tuple(dead), await consumers_of(admin))


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
    headers: Mapping[str, str] = h.lowered(stored.message.headers)
    failure = deadletter.read(stored.message)
    return DeadLetter(
        id=headers.get(h.ID, ""),
        name=headers.get(h.TYPE, "unknown"),
        durable=f"{failure.service}__{failure.listener}",
        reason=failure.reason.value,
    )
