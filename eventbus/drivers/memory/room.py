"""`MemoryRoom`: what a janitor asks of a `MemoryBroker`, and does in it."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from eventbus.drivers.memory.broker import MemoryBroker
from eventbus.drivers.memory.stream import Stream
from eventbus.drivers.room import DurableState, Fill
from eventbus.subject import covers

__all__ = ("MemoryRoom",)


class MemoryRoom:
    """A `Room` on the streams of one broker; purging is cheap here, so everybody has the turn."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.max_age = broker.sizes.max_age
        """Seconds after which events are gone."""
        self.duplicate_window = broker.sizes.duplicate_window
        """Seconds for which a stored event keeps its id from being stored again."""

    async def events(self) -> Fill:
        """Return how full the stream of events is."""
        return _fill(self._broker.events, self._broker.sizes.max_bytes)

    async def later(self) -> Fill:
        """Return how full the stream of what waits is."""
        return _fill(self._broker.later.stream, self._broker.later.limit)

    async def durables(self) -> Sequence[DurableState]:
        """Return every durable."""
        return tuple(one.state() for one in self._broker.durables.values())

    async def subjects(self) -> Sequence[str]:
        """Return the subjects of events that are stored."""
        return self._subjects(self._broker.subjects.prefix)

    async def retries(self) -> Sequence[str]:
        """Return the subjects of retries that are stored."""
        return self._subjects(self._broker.subjects.retries.removesuffix(">"))

    async def stored_before(self, time: datetime) -> int:
        """Return the sequence below which everything is older than ``time``."""
        newer = (one.sequence for one in self._broker.events.all() if one.at >= time)
        return next(newer, self._broker.events.last + 1)

    async def oldest_unread(self, durable: DurableState) -> datetime | None:
        """Return when the oldest event that a durable still has to handle was stored."""
        unread = (
            one.at
            for one in self._broker.events.all()
            if one.sequence > durable.handled and durable.takes(one.message.subject)
        )
        return next(unread, None)

    async def settle_position(self) -> int:
        """Remove what has left the stream of what waits, and return what may be purged."""
        self._broker.later.tidy()
        return self._broker.events.last

    async def purge(self, subject: str, last: int) -> int:
        """Remove what is stored on one subject at and below a sequence; return how many."""
        return self._broker.purge(subject, last)

    async def has_marks(self) -> bool:
        """Tell whether an atomic listener's mark is stored."""
        every = self._broker.subjects.inboxes()
        return any(covers(every, one.message.subject) for one in self._broker.events.all())

    async def purge_marks(self, durable: str, last: int) -> int:
        """Remove the marks that a durable's listener left at and below a sequence; tell how many."""
        return self._broker.purge(self._broker.subjects.inboxes(durable), last)

    async def take_turn(self) -> bool:
        """Make room."""
        return True

    async def pressed(self, within: float) -> bool:
        """Wait until a publish found no room; False where none did ``within`` so many seconds."""
        if self._broker.later.is_blocked:
            return True
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        tell = partial(_answer, answer, was=True)
        self._broker.pressed.append(tell)
        timers = self._broker.timers
        timers.at(timers.now + within, partial(_answer, answer, was=False))
        try:
            return await answer
        finally:
            if tell in self._broker.pressed:
                self._broker.pressed.remove(tell)

    def _subjects(self, prefix: str) -> tuple[str, ...]:
        stored = (one.message.subject for one in self._broker.events.all())
        unique = dict.fromkeys(one for one in stored if one.startswith(prefix))
        return tuple(one for one in unique if self._broker.subjects.event_name(one) is not None)


def _answer(future: "asyncio.Future[bool]", *, was: bool) -> None:
    if not future.done():
        future.set_result(was)


def _fill(stream: Stream, limit: int) -> Fill:
    stored = stream.all()
    return Fill(
        stream=stream.name,
        messages=len(stored),
        bytes=stream.bytes,
        limit=limit,
        last=stream.last,
        oldest=stored[0].at if stored else None,
    )
