"""`Letterbox`: the stream of dead letters as an operator works it, and the record of redrives."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from eventbus.drivers.jetstream.admin import Admin, Stored, StreamView
from eventbus.drivers.jetstream.api import Api, ApiError, number, rows, text, translated
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.envelope import Message
from eventbus.errors import TopologyError
from eventbus.headers import parse_time, render_time
from eventbus.subject import Subjects

__all__ = ("Letterbox", "Place", "Redrive")

KEPT = 20
"""How many redrives of one letter are kept; the last ones."""
_NOT_DELETED = (10043, 10057)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dead letter is stored; never another letter's, also if the stream is made anew."""

    sequence: int
    time: datetime


@dataclass(frozen=True, slots=True)
class Redrive:
    """A letter's event was sent to its listener again."""

    number: int
    """Which redrive of the letter it was, from 1."""
    at: datetime
    edited: bool = False
    """Another payload was sent than the letter holds."""


class Letterbox:
    """The dead letters of a namespace.

    A letter is never changed. Its redrives are recorded beside it, in the bucket of attempts and
    without its age limit, so that a letter keeps its number and a full stream can be worked.
    Everything here raises `DriverError` where the server can't say or do it now, and
    `TopologyError` where it refuses.
    """

    def __init__(self, api: Api, admin: Admin, publisher: Publisher, subjects: Subjects) -> None:
        self._api = api
        self._admin = admin
        self._publisher = publisher
        self._records = f"$KV.{subjects.attempts_bucket}.redrive"
        self.subjects = subjects
        self.stream = subjects.dead_letter_stream

    async def view(self) -> StreamView:
        """Return what the stream holds.

        Raises:
            TopologyError: There is no such stream.
        """
        for view in await self._admin.streams():
            if view.name == self.stream:
                return view
        raise TopologyError(
            thing=f"stream {self.stream}",
            problem="isn't there, so no dead letter is kept",
            remedy="start a service with EVENTBUS_PROVISION=auto, or check EVENTBUS_NAMESPACE",
        )

    def stored(
        self, subject: str = ">", start: int | datetime = 1, limit: int | None = None
    ) -> AsyncIterator[Stored]:
        """Yield what the stream holds on a subject, which may be a pattern, the oldest first."""
        return self._admin.messages(self.stream, subject, start, limit)

    async def redrives(self, place: Place | None = None) -> Mapping[Place, tuple[Redrive, ...]]:
        """Return the recorded redrives, the oldest first: of one letter, or of all."""
        subject = f"{self._records}.>" if place is None else self._record(place)
        bucket = f"KV_{self.subjects.attempts_bucket}"
        records = [_read(one.message) async for one in self._admin.messages(bucket, subject)]
        return dict(one for one in records if one is not None)

    async def record(self, place: Place, redrives: Iterable[Redrive]) -> None:
        """Record the redrives of a letter, confirmed, in place of those recorded before."""
        record = [
            {"number": one.number, "at": render_time(one.at), "edited": one.edited}
            for one in [*redrives][-KEPT:]
        ]
        headers = {
            "Nats-TTL": "never"
        }  # else it would die with the attempts, long before a letter
        message = Message(self._record(place), headers, json.dumps(record).encode())
        await self._publisher.publish(message, headroom=0)

    async def remove(self, place: Place, *, recorded: bool) -> bool:
        """Delete a letter for good, and what is recorded of it; False where it was gone already.

        Its bytes aren't overwritten. A crash in between leaves the record alone, to nobody's harm.
        """
        is_there = await self._delete(place.sequence)
        if recorded:
            with translated(f"the record of dead letter {place.sequence}"):
                verb = f"STREAM.PURGE.KV_{self.subjects.attempts_bucket}"
                await self._api.call(verb, {"filter": self._record(place)})
        return is_there

    async def _delete(self, sequence: int) -> bool:
        with translated(f"dead letter {sequence}"):
            try:
                verb = f"STREAM.MSG.DELETE.{self.stream}"
                await self._api.call(verb, {"seq": sequence, "no_erase": True})
            except ApiError as exc:
                # Also before the first sequence and behind the last one, with a vaguer code.
                unsure = exc.err_code in _NOT_DELETED
                if unsure and await self._admin.message(self.stream, sequence) is None:
                    return False
                raise
        return True

    def _record(self, place: Place) -> str:
        stored = (place.time - _EPOCH) // _MICROSECOND
        return f"{self._records}.{place.sequence}.{stored}"


def _read(record: Message) -> tuple[Place, tuple[Redrive, ...]] | None:
    """Return what a record says, None where somebody else has put something there."""
    try:
        sequence, stored = record.subject.split(".")[-2:]
        place = Place(int(sequence), _EPOCH + int(stored) * _MICROSECOND)
        history = rows(json.loads(record.body))
    except (ValueError, OverflowError):
        return None
    return place, tuple(
        Redrive(
            number=number(one.get("number")),
            at=parse_time(text(one.get("at"))) or _EPOCH,
            edited=one.get("edited") is True,
        )
        for one in history
    )
