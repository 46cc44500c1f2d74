"""`Commits`: the batches of atomic listeners, which wait in another stream while theirs is full."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from eventbus.drivers.atomic import Mark
from eventbus.drivers.base import Receipt
from eventbus.drivers.jetstream.batch import Batches
from eventbus.drivers.jetstream.schedules import target_of
from eventbus.envelope import Message
from eventbus.errors import BackpressureError, SequenceConflictError
from eventbus.subject import Subjects

__all__ = ("Commits",)


class Commits:
    """What `eventbus.drivers.atomic.Atomic` asks for, on the streams of one namespace.

    Args:
        stored: Batches of the stream of events.
        held: Batches of the stream of what waits.
        subjects: Those of the namespace.
        explained: Tells the janitor of a batch without room, and names who holds it.
        waits: Checks that so much may wait; None where this server hands on nothing that waits.
    """

    def __init__(
        self,
        stored: Batches,
        held: Batches,
        subjects: Subjects,
        *,
        explained: Callable[[BackpressureError], Awaitable[BackpressureError]],
        waits: Callable[[], Callable[[Message], None] | None],
    ) -> None:
        self._stored = stored
        self._held = held
        self._subjects = subjects
        self._explained = explained
        self._waits = waits

    async def marked(self, subject: str) -> Mark | None:
        """Return the last mark on a subject, wherever it is."""
        if self._waits() is None:
            return await self._stored.marked(subject)
        held = self._subjects.held(subject)
        found, waiting = await asyncio.gather(
            self._stored.marked(subject), self._held.marked(held)
        )
        return found or waiting

    async def commit(self, mark: Mark, messages: Sequence[Message]) -> Sequence[Receipt]:
        """Store a mark and messages, or nothing; in a full stream they wait together for room.

        Refused, a chain of events would stand still: it is the listener's work that makes room.
        """
        try:
            return await self._stored.commit(mark, messages)
        except BackpressureError as exc:
            refused, check = await self._explained(exc), self._waits()
            if check is None:
                raise refused from exc
        for one in messages:
            check(one)
        return await self._hold(mark, messages)

    async def _hold(self, mark: Mark, messages: Sequence[Message]) -> Sequence[Receipt]:
        found = await self._stored.marked(mark.subject)
        if found is not None and found.sequence != mark.sequence:
            raise SequenceConflictError(name=mark.subject, subject=mark.subject)
        place = self._subjects.held(mark.subject)
        # Over nothing, unless it is to go over a mark: then over the one that is here.
        before = await self._held.marked(place) if mark.sequence else None
        over = 0 if before is None else before.sequence
        waiting = [
            replace(one, subject=target_of(self._subjects, one.subject)) for one in messages
        ]
        return await self._held.commit(Mark(place, mark.run, over), waiting)
