"""Read dead letters: one by its number, or those that fit a filter."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from eventbus import deadletter
from eventbus import headers as h
from eventbus.deadletter import Failure
from eventbus.delivery import Reason
from eventbus.drivers.jetstream.admin import Stored
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.jetstream.letterbox import Letterbox, Place, Redrive
from eventbus.envelope import Message
from eventbus.errors import DecodeError
from eventbus.subject import matches

__all__ = ("Letter", "Where", "failed_again", "find", "letter_of", "show")


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: an event that a listener couldn't handle, and why."""

    place: Place
    event: str
    """The event's name; "unknown" where its subject was none."""
    failure: Failure
    message: Message
    redrives: tuple[Redrive, ...] = ()
    """When it was sent to its listener again, the oldest first."""
    edited: bool = False
    """Its payload isn't the stored one."""

    @property
    def number(self) -> int:
        """Its number; it never changes, and no other letter has it."""
        return self.place.sequence

    @property
    def listener(self) -> str:
        """The listener that failed, as ``service.listener``."""
        return f"{self.failure.service}.{self.failure.listener}"

    @property
    def id(self) -> str:
        """The event's id; empty where it had none."""
        return self._header(h.ID)

    @property
    def key(self) -> str | None:
        """The event's ordering key."""
        return self._header(h.KEY) or None

    @property
    def correlation_id(self) -> str:
        """The id that all events of one story share; empty where it had none."""
        return self._header(h.CORRELATION_ID)

    @property
    def tags(self) -> tuple[str, ...]:
        """The event's tags."""
        return h.tags_in(self.message.headers)

    def _header(self, name: str) -> str:
        return h.unquoted(self.message.headers.get(name, ""))


@dataclass(frozen=True, slots=True)
class Where:
    """Which letters; a condition that is None takes all, and all of them must hold."""

    service: str | None = None
    listener: str | None = None
    """Its name, without the service's."""
    event: str | None = None
    """A name, or a pattern such as ``user.*``."""
    reason: Reason | None = None
    error: str | None = None
    """The error's type or code, whole or its last part: ``ValueError``, ``invalid_event``."""
    fingerprint: str | None = None
    """As `eventbus.ops.deadletters.groups` tells it."""
    key: str | None = None
    """The event's ordering key."""
    tag: str | None = None
    """One of the event's tags."""
    since: datetime | None = None
    """Stored then or later."""
    until: datetime | None = None
    """Stored before."""
    redriven: bool | None = None
    """Whether it was redriven before."""

    @property
    def is_everything(self) -> bool:
        """Whether no condition is set."""
        return all(getattr(self, one.name) is None for one in fields(self))

    def takes(self, letter: Letter) -> bool:
        """Tell whether a letter fits."""
        failure = letter.failure
        return (
            self.service in (None, failure.service)
            and self.listener in (None, failure.listener)
            and (self.event is None or matches(self.event, letter.event))
            and self.reason in (None, failure.reason)
            and (self.error is None or f".{failure.error_type}".endswith(f".{self.error}"))
            and self.fingerprint in (None, failure.fingerprint)
            and self.key in (None, letter.key)
            and (self.tag is None or self.tag in letter.tags)
            and (self.since is None or letter.place.time >= self.since)
            and (self.until is None or letter.place.time < self.until)
            and self.redriven in (None, bool(letter.redrives))
        )


async def find(
    driver: JetStreamDriver,
    where: Where | None = None,
    *,
    newest_first: bool = False,
    limit: int | None = None,
) -> AsyncGenerator[Letter]:
    """Yield the letters that fit, the oldest first; what is stored meanwhile isn't among them.

    Raises:
        TopologyError: There is no stream of dead letters.
        DriverError: The server can't say now.
    """
    where = where or Where()
    found = _found(driver.letterbox, where)
    if newest_first:
        # A stream is read forwards only; of the many only the last ones are held.
        kept: deque[Letter] = deque(maxlen=limit)
        async for letter in found:
            kept.append(letter)
        for letter in reversed(kept):
            yield letter
        return
    count = 0
    async for letter in found:
        if limit is not None and count >= limit:
            return
        count += 1
        yield letter


async def show(driver: JetStreamDriver, number: int) -> Letter | None:
    """Return the letter of a number, None where there is none (any more); raises as `find`."""
    box = driver.letterbox
    await box.view()
    async for stored in box.stored(start=number, limit=1):
        if stored.sequence == number:
            place = Place(stored.sequence, stored.time)
            return letter_of(box, stored, await box.redrives(place))
    return None


async def failed_again(driver: JetStreamDriver, letter: Letter) -> tuple[int, ...]:
    """Return the numbers of the letters that redrives of this one led to; raises as `find`.

    None while a redriven event is still to be handled, and where it was handled in the end.
    """
    where = Where(letter.failure.service, letter.failure.listener, letter.event)
    later = [
        one.number
        async for one in find(driver, where)
        if one.number > letter.number
        and one.id == letter.id
        and one.failure.redrive > letter.failure.redrive
    ]
    return tuple(later)


def letter_of(
    box: Letterbox, stored: Stored, redrives: Mapping[Place, tuple[Redrive, ...]]
) -> Letter | None:
    """Return the letter in a stored message, None where it is none."""
    place = Place(stored.sequence, stored.time)
    try:
        failure = deadletter.read(stored.message)
    except DecodeError:
        return None
    mine = box.subjects.dead_letter(failure.service, failure.listener, "")
    event = stored.message.subject.removeprefix(mine)
    return Letter(place, event, failure, stored.message, redrives.get(place, ()))


async def _found(box: Letterbox, where: Where) -> AsyncIterator[Letter]:
    # What a redrive makes fail again comes behind the end that is now, so a run has an end.
    last = (await box.view()).last_sequence
    redrives = await box.redrives()
    subject = box.subjects.dead_letter(
        where.service or "*", where.listener or "*", where.event or ">"
    )
    async for stored in box.stored(subject, where.since or 1):
        if stored.sequence > last:
            return
        letter = letter_of(box, stored, redrives)
        if letter is not None and where.takes(letter):
            yield letter
