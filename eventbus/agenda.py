"""`Agenda`: the delayed events of a namespace, each under its id: added once, cancelled, moved."""

from dataclasses import replace
from datetime import datetime

from eventbus import headers as h
from eventbus.drivers.base import Driver
from eventbus.drivers.receipt import Receipt, Scheduled
from eventbus.drivers.schedules import Waiting
from eventbus.envelope import NO_HEADERS, Message
from eventbus.errors import FixedEventError, IdConflictError, PublishError, SequenceConflictError
from eventbus.subject import Subjects

__all__ = ("Agenda",)

TRIES = 5
"""How often it looks again where others change the same event at the same time."""


class Agenda:
    """Delayed events over one driver.

    An id stands for one event: as long as it waits, adding it again changes nothing.
    Everything here raises `UnsupportedError` where the driver has no schedules, and `DriverError`
    where it can't be done now.
    """

    def __init__(self, driver: Driver, subjects: Subjects) -> None:
        self._driver = driver
        self._subjects = subjects

    async def add(self, message: Message, *, at: datetime) -> Receipt:
        """Store an event so that it is handed to its listeners at a time, not before.

        Where its id waits already, the receipt says so and what waits stays as it is. Where its
        id has fired or was cancelled within the duplicate window, the receipt says so too, names
        no place, and nothing is stored.

        Raises:
            IdConflictError: Another event waits under its id.
        """
        schedules = self._driver.schedules
        id = h.unquoted(message.headers[h.ID])
        service = h.unquoted(message.headers[h.SOURCE])
        if h.TICK in message.headers:
            name, _, _ = h.unquoted(message.headers[h.TICK]).partition(" ")
            return await self._add_tick(message, at, self._subjects.tick(service, name))
        holder = self._subjects.schedule(service, id)
        for _ in range(TRIES):
            try:
                receipt = await schedules.add(message, at=at, holder=holder)
            except SequenceConflictError:
                found = await schedules.read(holder)
                if found is not None:
                    return self._known(message, self._place(id, service, found.at), found)
                # It has fired in between; if it was this one, its id is known now.
            else:
                waits = None if receipt.duplicate else self._place(id, service, at)
                return replace(receipt, scheduled=waits)
        raise PublishError(f"'{message.headers[h.TYPE]}' {id} wasn't stored: others add it too")

    async def _add_tick(self, message: Message, at: datetime, holder: str) -> Receipt:
        """Store the next tick of a recurring event where its ticks wait.

        The receipt says duplicate where one waits there already, or had before under this id.
        """
        schedules = self._driver.schedules
        found = await schedules.read(holder)
        instead_of = 0
        if found is not None:
            if not found.is_cancelled:
                return self._seen(message, found)
            instead_of = found.sequence
            # The tick of that time may be the one that was cancelled: its id is known.
            message = replace(message, id=f"{message.id}:{instead_of}")
        try:
            return await schedules.add(message, at=at, holder=holder, instead_of=instead_of)
        except SequenceConflictError:  # another process was quicker
            return self._seen(message, await schedules.read(holder))

    async def cancel(self, service: str, id: str) -> bool:
        """Have an event never fire; return False where it is too late, or nothing ever waited.

        Cancelled before is cancelled: that is True again, for the duplicate window.

        Raises:
            FixedEventError: Its class doesn't let it be taken back.
        """
        schedules = self._driver.schedules
        found = _free(await schedules.read(self._subjects.schedule(service, id)))
        for _ in range(TRIES):
            if found is None:
                return False
            if await schedules.cancel(found):
                return True
            found = await self._successor(found)
        return False

    async def move(self, service: str, id: str, at: datetime) -> Scheduled | None:
        """Have an event fire at another time; None where it is too late, or it was cancelled.

        Its expiry moves with it.

        Raises:
            FixedEventError: Its class doesn't let it be moved.
        """
        schedules = self._driver.schedules
        found = _free(await schedules.read(self._subjects.schedule(service, id)))
        for _ in range(TRIES):
            if found is None or found.is_cancelled:
                return None
            if await schedules.replace(found, _moved(found, at), at=at):
                return self._place(id, service, at)
            found = await self._successor(found)
        return None

    def _place(self, id: str, service: str, at: datetime) -> Scheduled:
        return Scheduled(id, service, at, self._driver.name)

    async def _successor(self, waiting: Waiting) -> Waiting | None:
        """Return what somebody else has put in its place; None where it has fired."""
        found = await self._driver.schedules.read(waiting.holder)
        return None if found is None or found.sequence == waiting.sequence else found

    def _seen(self, message: Message, found: Waiting | None) -> Receipt:
        """Return the receipt of a tick that somebody else has stored."""
        stream, sequence = ("", 0) if found is None else (found.stream, found.sequence)
        id = h.unquoted(message.headers[h.ID])
        return Receipt(id, stream, sequence, duplicate=True, driver=self._driver.name)

    def _known(self, message: Message, waits: Scheduled, found: Waiting) -> Receipt:
        """Return the receipt of what stands there; it must be the same event."""
        kind = found.message.headers.get(h.TYPE, "?")
        same_body = found.is_cancelled or found.message.body == message.body
        if kind != message.headers[h.TYPE] or not same_body:
            place = f"'{kind}', which waits until {h.render_time(found.at)}"
            raise IdConflictError(name=message.headers[h.TYPE], id=waits.id, stored=place)
        return Receipt(
            id=waits.id,
            stream=found.stream,
            sequence=found.sequence,
            duplicate=True,
            driver=self._driver.name,
            scheduled=None if found.is_cancelled else waits,
        )


def _free(waiting: Waiting | None) -> Waiting | None:
    """Return what waits, where its class lets it be taken back."""
    headers = h.lowered(NO_HEADERS if waiting is None else waiting.message.headers)
    if headers.get(h.FIXED.lower()):
        raise FixedEventError(name=headers.get(h.TYPE, "?"), id=h.unquoted(headers.get(h.ID, "?")))
    return waiting


def _moved(waiting: Waiting, at: datetime) -> Message:
    headers = {**waiting.message.headers, h.DUE.lower(): h.render_time(at)}
    expires = h.parse_time(headers.get(h.EXPIRES.lower(), ""))
    if expires is not None:
        headers[h.EXPIRES.lower()] = h.render_time(at + (expires - waiting.at))
    # Not the event's id, which the server has seen: it would drop this one.
    id = f"move:{waiting.holder}:{waiting.sequence}"
    return replace(waiting.message, headers=headers, id=id)
