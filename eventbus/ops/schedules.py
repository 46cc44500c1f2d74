"""What waits for its time, as an operator sees it: delayed events and the ticks of recurring ones.

Functions over a connected driver (`eventbus.ops.connect.connected`).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from eventbus import headers as h
from eventbus.agenda import Agenda
from eventbus.drivers.base import Driver
from eventbus.drivers.schedules import Waiting
from eventbus.scheduler.ticker import Mark
from eventbus.subject import Subjects, matches

__all__ = ("Entry", "cancel", "listed")


@dataclass(frozen=True, slots=True)
class Entry:
    """A delayed event that waits, or the next tick of a recurring one."""

    service: str
    """Who emitted it."""
    event: str
    """The event's name."""
    id: str
    """The event's id."""
    at: datetime
    """When it comes, in UTC."""
    key: str | None = None
    """The event's ordering key."""
    stored_at: datetime | None = None
    recurring: str = ""
    """The name of what recurs; empty for a delayed event."""
    rule: str = ""
    """Its rule, as it was declared when the tick was stored."""

    @property
    def name(self) -> str:
        """What `cancel` takes: the name of what recurs, or the event's id."""
        return self.recurring or self.id


async def listed(
    driver: Driver, subjects: Subjects, *, service: str | None = None, event: str | None = None
) -> list[Entry]:
    """Return what waits, what comes first in front.

    Args:
        driver: Connected.
        subjects: Those of the namespace.
        service: Only what this service emitted.
        event: Only this event, or those of a pattern.

    Raises:
        DriverError: The server can't say now.
    """
    found = [
        entry
        async for entry in _entries(driver, subjects, service or "*")
        if event is None or matches(event, entry.event)
    ]
    return sorted(found, key=lambda one: (one.at, one.name))


async def cancel(driver: Driver, subjects: Subjects, service: str, name: str) -> bool:
    """Have a delayed event, or the next tick of what recurs, never come; False where it is too late.

    Of what a service declares, and runs, this skips one tick; of what nobody declares any more it
    removes the last one.

    Args:
        driver: Connected.
        subjects: Those of the namespace.
        service: Who emitted it.
        name: The event's id, or the name of what recurs.

    Raises:
        FixedEventError: The event's class doesn't let it be taken back.
        DriverError: Nobody knows now; cancel it again.
    """
    if await Agenda(driver, subjects).cancel(service, name):
        return True
    if "." in name or "*" in name or ">" in name:  # an id, and no place of a tick
        return False
    found = await driver.schedules.read(subjects.tick(service, name))
    return found is not None and await driver.schedules.cancel(found)


async def _entries(driver: Driver, subjects: Subjects, service: str) -> AsyncIterator[Entry]:
    for pattern in (subjects.schedules(service), subjects.tick(service, "*")):
        async for waiting in driver.schedules.find(pattern):
            if not waiting.is_cancelled:
                yield _entry(waiting)


def _entry(waiting: Waiting) -> Entry:
    headers = h.lowered(waiting.message.headers)
    mark = Mark.of(waiting)
    return Entry(
        service=h.unquoted(headers.get(h.SOURCE, "")),
        event=headers.get(h.TYPE, ""),
        id=h.unquoted(headers.get(h.ID, "")),
        at=waiting.at,
        key=h.ordering_key(headers) or None,
        stored_at=waiting.stored_at,
        recurring="" if mark is None else mark.name,
        rule="" if mark is None else mark.rule,
    )
