"""`Janitor`: makes room in the stream of events, and tells of what holds it or is about to be lost.

It decides; a driver's `Room` asks and does. One in the cluster makes room at a time.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from eventbus.clock import Clock
from eventbus.drivers.room import DurableState, Fill, Room, holders
from eventbus.errors import NotConnectedError
from eventbus.telemetry.conditions import (
    DurablesChecked,
    JanitorFailed,
    LaterFilling,
    RoomMade,
    RoomShort,
    StreamMeasured,
    Unattended,
    UnreadAging,
)
from eventbus.telemetry.signals import Observer

__all__ = ("Janitor", "marks_purgeable", "purgeable")

LOOK_EVERY = 2.0
LOOK_SOON = 0.5
"""Seconds to the next look where room is being made, or soon has to be."""
LEAST = 0.25
NEAR = 0.5
FULL = 0.8
"""The used part from which on room is made."""
LATER_EVERY = 10.0
TIDY_AFTER = 1000
"""Messages more in the stream of what waits, after which what has left it is removed."""
MOVED = 1000
"""Messages more in the stream of events, after which its place in what waits is settled anew."""
DURABLES_EVERY = 60.0
AGING = 0.8
"""The part of its time after which an unread event is in danger."""
UNATTENDED_AFTER = 300.0
REPEAT = 300.0
"""Seconds after which an alarm that lasts is told again."""


def purgeable(
    subject: str, durables: Iterable[DurableState], last: int, *, recent: int, thorough: bool
) -> int:
    """Return the sequence at and below which all of a subject may be purged.

    What any durable that takes it hasn't handled stays. What is newer than the duplicate window
    stays too, since after a restart the server knows the ids of what it stores and of nothing
    else; unless it has to go (``thorough``). What no durable takes has no reader to wait for, but
    one may just have been deleted under a running worker, which makes it again: it goes once it
    is older than the window, and never before.

    Args:
        subject: One event's subject.
        durables: Every durable there is.
        last: Where to end in any case.
        recent: The first sequence within the duplicate window.
        thorough: Whether the window may be touched.
    """
    handled = [one.handled for one in durables if one.takes(subject)]
    if handled and thorough:
        return min(*handled, last)
    return min(*handled, last, recent - 1)


def marks_purgeable(
    one: DurableState,
    subjects: Iterable[str],
    durables: Sequence[DurableState],
    last: int,
    *,
    recent: int,
    thorough: bool,
) -> int:
    """Return the sequence at and below which the marks of a durable's listener may be purged.

    A mark lies behind the event that it speaks of. So it goes once nothing is stored before it
    that its listener takes: without its event it tells nobody anything.

    Args:
        one: The durable of an atomic listener.
        subjects: Those that still hold something.
        durables: As of `purgeable`.
        last: As of `purgeable`.
        recent: As of `purgeable`.
        thorough: As of `purgeable`.
    """
    own = (
        purgeable(each, durables, last, recent=recent, thorough=thorough)
        for each in subjects
        if one.takes(each)
    )
    return min(one.handled, last, *own, *(() if thorough else (recent - 1,)))


class Janitor:
    """Looks every few seconds; does nothing else while there is room."""

    def __init__(self, room: Room, observe: Observer, clock: Clock) -> None:
        self._room = room
        self._observe = observe
        self._clock = clock
        self._last = 0
        self._purged: dict[str, int] = {}
        self._tidied = self._settled = 0
        self._later_due = self._durables_due = 0.0
        self._told: dict[object, float] = {}

    async def run(self) -> None:
        """Look until cancelled; what fails is told, and tried again with the next look."""
        pressed = False
        while True:
            pause = LOOK_EVERY
            try:
                pause = await self.look(pressed=pressed)
            except NotConnectedError:
                pass  # the driver tells of it
            except Exception as exc:  # noqa: BLE001 - whatever it is, the listeners go on
                if self._is_news(("failed", str(exc))):
                    self._observe(JanitorFailed(exc))
            await self._clock.sleep(LEAST)  # however many publishes find no room
            pressed = await self._room.pressed(pause - LEAST)

    async def look(self, *, pressed: bool = False) -> float:
        """Look once, and do what is needed; return the seconds until the next look.

        Args:
            pressed: A publish found no room, whatever the numbers say.

        Raises:
            DriverError, TopologyError: The server can't say or do it now.
        """
        fill = await self._room.events()
        self._observe(StreamMeasured(fill))
        if fill.last < self._last:  # a stream that was made anew
            self._purged.clear()
            self._settled = 0
        self._last = fill.last
        now = self._clock.monotonic()
        if now >= self._later_due:
            self._later_due = now + (LOOK_EVERY if fill.share >= NEAR else LATER_EVERY)
            await self._look_at_later(near=fill.share >= NEAR)
        if now >= self._durables_due:
            self._durables_due = now + DURABLES_EVERY
            await self._look_at_durables(fill)
        if not pressed and fill.share < FULL:
            return LOOK_SOON if fill.share >= NEAR else LOOK_EVERY
        if not await self._room.take_turn():
            return LOOK_EVERY
        return LOOK_SOON if await self._make_room(pressed=pressed) else LOOK_EVERY

    async def _look_at_later(self, *, near: bool) -> None:
        later = await self._room.later()
        self._observe(StreamMeasured(later, later=True))
        if later.last < self._tidied:  # made anew
            self._tidied = 0
        more = later.last - self._tidied
        moved = more or self._last - self._settled >= MOVED
        if more >= TIDY_AFTER or (more and later.share >= NEAR) or (near and moved):
            if await self._room.take_turn():
                await self._room.settle_position()
            self._tidied, self._settled = later.last, self._last
        if later.share >= FULL and self._is_news("later"):
            self._observe(LaterFilling(later.stream, later.bytes, later.limit or 0))

    async def _make_room(self, *, pressed: bool) -> bool:
        """Purge what all have handled; return whether there was anything."""
        room = self._room
        last = await room.settle_position()
        window = timedelta(seconds=room.duplicate_window)
        recent = await room.stored_before(self._clock.now() - window)
        durables = await room.durables()
        freed, fill = 0, await room.events()
        for thorough in (False, True):
            freed += await self._purge(durables, last, recent=recent, thorough=thorough)
            fill = await room.events()
            if fill.share < FULL and (freed or not pressed):
                break
        self._observe(StreamMeasured(fill))
        if freed:
            self._purged.clear()  # until nothing more comes of it
            self._observe(RoomMade(fill.stream, freed))
        held_by = holders(durables)
        if fill.share >= FULL and self._is_news(("short", held_by)):
            self._observe(RoomShort(fill.stream, fill.bytes, fill.limit or 0, held_by))
        return freed > 0

    async def _purge(
        self, durables: Sequence[DurableState], last: int, *, recent: int, thorough: bool
    ) -> int:
        room, freed = self._room, 0
        events, retries = await room.subjects(), await room.retries()
        # A retry that no durable takes was promised to one listener; it stays until it is too old.
        waiting = (one for one in retries if any(durable.takes(one) for durable in durables))
        for subject in (*events, *waiting):
            to = purgeable(subject, durables, last, recent=recent, thorough=thorough)
            if to > self._purged.get(subject, 0):
                freed += await room.purge(subject, to)
                self._purged[subject] = to
        if await room.has_marks():
            stored = (*await room.subjects(), *await room.retries())
            for one in durables:
                to = marks_purgeable(one, stored, durables, last, recent=recent, thorough=thorough)
                freed += await self._purge_marks(one.durable, to)
        return freed

    async def _purge_marks(self, durable: str, to: int) -> int:
        place = f"marks of {durable}"
        if to <= self._purged.get(place, 0):
            return 0
        self._purged[place] = to
        return await self._room.purge_marks(durable, to)

    async def _look_at_durables(self, fill: Fill) -> None:
        """Tell of durables that nobody works, and of unread events that will soon be too old."""
        if not await self._room.take_turn():
            self._observe(DurablesChecked((), ()))
            return
        now = self._clock.now()
        behind = [one for one in await self._room.durables() if one.unread]
        unattended = tuple(one for one in behind if _is_unattended(one, now))
        aging: list[str] = []
        limit = AGING * self._room.max_age
        for one in behind if _age(fill.oldest, now) >= limit else ():
            age = _age(await self._room.oldest_unread(one), now)
            if age >= limit:
                aging.append(one.durable)
                self._tell_aging(one, age)
        for one in unattended:
            if self._is_news(("unattended", one.durable)):
                self._observe(Unattended(one.durable, one.unread))
        self._observe(DurablesChecked(tuple(one.durable for one in unattended), tuple(aging)))

    def _tell_aging(self, one: DurableState, age: float) -> None:
        if self._is_news(("aging", one.durable)):
            self._observe(UnreadAging(one.durable, one.unread, age, self._room.max_age))

    def _is_news(self, what: object) -> bool:
        """Tell whether an alarm wasn't told in the last minutes."""
        now = self._clock.monotonic()
        self._told = {one: at for one, at in self._told.items() if now - at < REPEAT}
        if what in self._told:
            return False
        self._told[what] = now
        return True


def _is_unattended(one: DurableState, now: datetime) -> bool:
    """Tell whether nobody asks for its events; one that is paused on purpose doesn't count."""
    return not one.waiting and not one.paused and _age(one.active, now) >= UNATTENDED_AFTER


def _age(time: datetime | None, now: datetime) -> float:
    return (now - time).total_seconds() if time is not None else 0.0
