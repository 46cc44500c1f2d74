"""`Position`: keeps a purge from losing how far the stream of events has taken over what waited.

Nobody stores that place. After a restart or with a new leader the server looks for the newest
sourced message that the stream still holds, and reads it from a header there. Where a purge has
removed all of those, it begins at the time of the stream's newest message: what waited for room
until then would never come.
"""

import asyncio
import base64
from contextlib import suppress
from dataclasses import dataclass

from eventbus.drivers.jetstream.admin import Admin
from eventbus.drivers.jetstream.api import Table, number, table, text
from eventbus.drivers.jetstream.contents import Contents
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.envelope import Message
from eventbus.subject import Subjects

__all__ = ("Position",)

PATIENCE = 0.5
"""A mark that hasn't come out by then has found no room; the source tries again every 2 s."""
LOOK_EVERY = 0.02
FRESH = 1000
"""So many messages newer than the mark, and another one is sent."""
SINGLY = 500
"""How many messages are removed one by one at most, where the newest sourced one is among them."""
SOURCE = "nats-stream-source"


@dataclass(frozen=True, slots=True)
class _Mark:
    """A sourced message that isn't an event's."""

    sequence: int
    source: int
    """Its sequence where it came from."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The newest sourced message, where it is an event's, and what is stored behind it."""

    subject: str
    sequence: int
    behind: tuple[int, ...]


class Position:
    """The place in the stream of what waits, for the one process that purges."""

    def __init__(
        self,
        events: Contents,
        later: Contents,
        admin: Admin,
        publisher: Publisher,
        subjects: Subjects,
    ) -> None:
        self._events = events
        self._later = later
        self._admin = admin
        self._publisher = publisher
        self._subjects = subjects
        self._sent = 0
        self._kept: _Kept | None = None

    async def settle(self) -> int:
        """Make the place safe, and return the sequence at and below which `purge` may purge.

        A mark goes through the source and stays, since no event has its subject; what was sourced
        before it has left the stream of what waits, and is removed there. Where there is no room
        for the mark, the newest sourced event is looked for, and stays.
        """
        self._kept = None
        last = _last(await self._events.info())
        mark = await self._newest()
        waiting = _last(await self._later.info())
        known, seen = (mark.source, mark.sequence) if mark is not None else (0, 0)
        if waiting <= known and last - seen < FRESH:
            return last
        fresh = await self._new(known, waiting) if waiting else None
        if fresh is None:
            self._kept = await self._newest_event(seen, last)
            return last
        for subject in (self._subjects.due(">"), self._subjects.retries):
            await self._later.purge(subject, fresh.source)
        await self._events.purge(self._subjects.position, fresh.sequence)
        return fresh.sequence

    async def purge(self, subject: str, last: int) -> int:
        """Remove what is stored on an event's subject at and below a sequence; return how many."""
        kept = self._kept
        if kept is None or kept.subject != subject or kept.sequence > last:
            return await self._events.purge(subject, last + 1)
        purged = await self._events.purge(subject, kept.sequence)
        behind = [one for one in kept.behind if one <= last]
        for sequence in behind:
            await self._events.delete(sequence)
        return purged + len(behind)

    async def _newest(self) -> _Mark | None:
        message = await self._events.message(last_by_subj=self._subjects.position)
        if message is None:
            return None
        block = base64.b64decode(text(message.get("hdrs"))).decode(errors="replace")
        for line in block.splitlines():
            if line.lower().startswith(f"{SOURCE}:"):
                # The stream, the sequence there, filters and destinations.
                return _Mark(number(message.get("seq")), int(line.split()[2]))
        return None

    async def _new(self, known: int, waiting: int) -> _Mark | None:
        """Send a mark through the source, unless one is under way; None where none comes out."""
        if not known < self._sent <= waiting:
            # It mustn't die of age.
            message = Message(self._subjects.position, {"Nats-TTL": "never"}, b"")
            self._sent = (await self._publisher.publish(message, headroom=0)).sequence
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    mark = await self._newest()
                    if mark is not None and mark.source >= self._sent:
                        return mark
                    await asyncio.sleep(LOOK_EVERY)
        return None

    async def _newest_event(self, after: int, last: int) -> _Kept | None:
        """Return the newest event that was sourced after a mark; None where none was.

        Only what is still in the stream of what waits can have been, and marks are sent while
        there is room, so that this doesn't read much.
        """
        kept: _Kept | None = None
        for subject in await self._sourced():
            newest, behind = 0, list[int]()
            async for one in self._admin.messages(self._events.stream, subject, after + 1):
                if one.sequence > last:
                    break
                if SOURCE in one.message.headers:
                    newest, behind = one.sequence, []
                elif len(behind) < SINGLY:
                    behind.append(one.sequence)
            if newest and (kept is None or newest > kept.sequence):
                kept = _Kept(subject, newest, tuple(behind))
        return kept

    async def _sourced(self) -> set[str]:
        """Return the subjects that what waits, or has waited, is sourced to."""
        prefix = self._subjects.due("")
        due = await self._later.subjects(self._subjects.due(">"))
        retries = await self._later.subjects(self._subjects.retries)
        return {
            *(self._subjects.event(one.removeprefix(prefix)) for one in due),
            *(one for one in retries if one != self._subjects.position),
        }


def _last(info: Table) -> int:
    return number(table(info.get("state")).get("last_seq"))
