"""`JetStreamSchedules`: what waits for its time, as schedules of the server (ADR-51)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import datetime

from eventbus import headers as h
from eventbus.drivers.jetstream import api as codes
from eventbus.drivers.jetstream.admin import Admin, Stored, stored_of
from eventbus.drivers.jetstream.api import Api, ApiError, table, text, translated
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.drivers.receipt import Receipt
from eventbus.drivers.schedules import Waiting
from eventbus.envelope import Message
from eventbus.errors import DriverError, SequenceConflictError
from eventbus.settings import Settings
from eventbus.subject import Subjects

__all__ = ("JetStreamSchedules", "schedule_of", "target_of")

IN_FLIGHT = 1.0
"""Seconds after which a message shows that was firing at the moment its place was taken."""
SCHEDULE = "Nats-Schedule"
TARGET = "Nats-Schedule-Target"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_AT = "@at "
_KEPT = (h.ID, h.TYPE, h.SOURCE, h.TICK.lower())
"""The headers of an event that stay on the mark of its being cancelled."""


def target_of(subjects: Subjects, subject: str) -> str:
    """Return where what is published to a subject goes from the stream of what waits.

    The stream of events takes it over from there; retries wait on their own subject.
    """
    if not subject.startswith(subjects.prefix):
        return subject
    return subjects.due(subject.removeprefix(subjects.prefix))


def schedule_of(message: Message, subjects: Subjects, *, at: datetime, holder: str) -> Message:
    """Return the schedule that has the server publish a message at a time."""
    headers = {
        **message.headers,
        SCHEDULE: f"{_AT}{h.render_time(at)}",
        # A schedule fires into its own stream.
        TARGET: target_of(subjects, message.subject),
        "Nats-TTL": "never",  # else it would die at the stream's max_age
    }
    return replace(message, subject=holder, headers=headers)


class JetStreamSchedules:
    """A `Schedules` on the stream of what waits; the server fires up to 250 ms late.

    Each holder is one subject. What is put there names the sequence that it takes the place of,
    so that of two that do it at once one is refused.
    """

    def __init__(
        self,
        api: Api,
        admin: Admin,
        publisher: Publisher,
        settings: Settings,
        check: Callable[[Message], None],
    ) -> None:
        self._api = api
        self._admin = admin
        self._publisher = publisher
        self._subjects = settings.subjects
        self._stream = settings.subjects.later_stream
        self._mark_kept = f"{max(1, round(settings.duplicate_window))}s"
        self._check = check

    async def now(self) -> datetime:
        """Return the time of the server, in UTC."""
        with translated(f"stream {self._stream}"):
            answer = await self._api.call(f"STREAM.INFO.{self._stream}")
        time = h.parse_time(text(answer.get("ts")))
        if time is None:
            raise DriverError(f"stream {self._stream}: the server doesn't say what time it is")
        return time

    async def add(
        self, message: Message, *, at: datetime, holder: str, instead_of: int = 0
    ) -> Receipt:
        """Store a message so that it is published at a time; see `Schedules`."""
        schedule = schedule_of(message, self._subjects, at=at, holder=holder)
        self._check(schedule)
        return await self._put(schedule, instead_of)

    async def read(self, holder: str) -> Waiting | None:
        """Return what stands at a holder; None where nothing does."""
        # Not a direct get: a replica may not know yet what was stored a moment ago.
        verb, ask = f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": holder}
        with translated(f"what waits on {holder}"):
            try:
                answer = await self._api.call(verb, ask)
            except ApiError as exc:
                if exc.err_code == codes.MESSAGE_NOT_FOUND:
                    return None
                raise
        return self._waiting(stored_of(self._stream, table(answer.get("message"))))

    async def cancel(self, waiting: Waiting) -> bool:
        """Leave a mark in place of what waits; see `Schedules`."""
        if waiting.is_cancelled:
            return waiting.stored_at < waiting.at or not await self._has_fired(waiting)
        kept = {name: value for name, value in waiting.message.headers.items() if name in _KEPT}
        headers = {
            **kept,
            h.CANCELLED: h.render_time(waiting.at),
            "Nats-Rollup": "sub",  # without it the mark would stand beside the schedule
            "Nats-TTL": self._mark_kept,
        }
        mark = Message(waiting.holder, headers, b"")
        return await self._displace(waiting, mark, lambda one: one.is_cancelled)

    async def replace(self, waiting: Waiting, message: Message, *, at: datetime) -> bool:
        """Have another message wait in place of one; see `Schedules`."""
        schedule = schedule_of(message, self._subjects, at=at, holder=waiting.holder)
        if await self._displace(waiting, schedule, lambda one: one.message.id == message.id):
            return True
        # In a cluster it may be there although the old one has fired; then it would fire too.
        left = await self.read(waiting.holder)
        if left is not None and left.message.id == message.id:
            await self.cancel(left)
        return False

    async def find(self, holders: str) -> AsyncIterator[Waiting]:
        """Yield what stands at the holders that match a pattern, the oldest first."""
        async for stored in self._admin.messages(self._stream, holders):
            waiting = self._waiting(stored)
            if waiting is not None:
                yield waiting

    async def _put(self, message: Message, instead_of: int) -> Receipt:
        headers = {**message.headers, EXPECTED: str(instead_of)}
        return await self._publisher.publish(replace(message, headers=headers), headroom=0)

    async def _displace(
        self, waiting: Waiting, message: Message, is_ours: Callable[[Waiting], bool]
    ) -> bool:
        """Put a message in the place of what waits; False where that has fired."""
        try:
            await self._put(message, waiting.sequence)
        except SequenceConflictError:
            found = await self.read(waiting.holder)
            # After an answer that was lost, it is ours that is there.
            if found is None or not is_ours(found):
                return False
        else:
            found = await self.read(waiting.holder)
        if found is not None and found.stored_at < waiting.at:
            return True
        # The server takes what is due in hand before it publishes it: of what was displaced in
        # between it publishes the copy all the same (seen in 1 of 100 at the very moment).
        await asyncio.sleep(IN_FLIGHT)
        return await self.read(waiting.holder) is not None and not await self._has_fired(waiting)

    async def _has_fired(self, waiting: Waiting) -> bool:
        """Tell whether the copy is stored: where it fires, or where it goes from there."""
        subject = waiting.message.subject
        places = (
            (self._stream, target_of(self._subjects, subject)),
            (self._subjects.stream, subject),
        )
        for stream, target in places:
            async for one in self._admin.messages(stream, target, waiting.at):
                if one.message.headers.get("nats-scheduler") == waiting.holder:
                    return True
        return False

    def _waiting(self, stored: Stored) -> Waiting | None:
        """Return what a stored message stands for, None where it is none of ours."""
        headers = stored.message.headers
        cancelled = h.parse_time(headers.get(h.CANCELLED.lower(), ""))
        schedule = headers.get(SCHEDULE.lower(), "")
        at = cancelled or h.parse_time(schedule.removeprefix(_AT))
        if at is None:
            return None
        return Waiting(
            holder=stored.message.subject,
            at=at,
            message=replace(
                stored.message,
                subject=self._goes_to(headers),
                headers=h.forwarded(headers),
            ),
            stream=stored.stream,
            sequence=stored.sequence,
            stored_at=stored.time,
            is_cancelled=cancelled is not None,
        )

    def _goes_to(self, headers: Mapping[str, str]) -> str:
        """Return the subject that a schedule's message is published to in the end."""
        target = headers.get(TARGET.lower(), "")
        due = self._subjects.due("")
        if target.startswith(due):
            return self._subjects.event(target.removeprefix(due))
        return target or self._subjects.event(headers.get(h.TYPE, ""))
