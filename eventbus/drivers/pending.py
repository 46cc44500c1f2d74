"""`Pending`: messages that wait for their time in this process, by its clock, and are gone with it."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import TypeAlias

from eventbus import headers as h
from eventbus.clock import Clock
from eventbus.drivers.receipt import Receipt
from eventbus.drivers.schedules import Waiting
from eventbus.drivers.timers import Action, Timers
from eventbus.envelope import Message
from eventbus.errors import SequenceConflictError
from eventbus.subject import matches

__all__ = ("Pending", "Taker")

Taker: TypeAlias = Callable[[Message, datetime], None]
"""Takes a message whose time has come, at once and without raising."""


class Pending:
    """A `Schedules` without a server: what is due is handed to whoever was opened last.

    Args:
        clock: By which messages fire; once added, a jump of its wall clock changes nothing.
        driver: The name in receipts.
        window: Seconds for which ids, and marks of what was cancelled, are remembered.
    """

    def __init__(self, clock: Clock, *, driver: str, window: float = 600.0) -> None:
        self.timers = Timers(clock)
        self._clock = clock
        self._driver = driver
        self._window = window
        self._waiting: dict[str, Waiting] = {}
        self._ids: dict[str, int] = {}
        self._sequence = 0
        self._takers: list[Taker] = []

    def open(self, taker: Taker) -> None:
        """Hand over to ``taker`` what is due."""
        self._takers.append(taker)

    def close(self, taker: Taker) -> tuple[Waiting, ...]:
        """Hand over to it no more; return what nobody is there for now, and forget that."""
        self._takers.remove(taker)
        if self._takers:
            return ()
        lost = tuple(one for one in self._waiting.values() if not one.is_cancelled)
        self._waiting.clear()
        return lost

    async def now(self) -> datetime:
        """Return the clock's time."""
        return self._clock.now()

    async def add(
        self, message: Message, *, at: datetime, holder: str, instead_of: int = 0
    ) -> Receipt:
        """Have a message wait; see `Schedules`."""
        if self._standing(holder) != instead_of:
            name = message.headers.get(h.TYPE) or message.subject
            raise SequenceConflictError(name=name, subject=holder)
        known = self._ids.get(message.id or "")
        sequence = self.put(message, at=at, holder=holder) if known is None else known
        return self.receipt(message, sequence, duplicate=known is not None)

    async def read(self, holder: str) -> Waiting | None:
        """Return what stands at a holder; None where nothing does."""
        return self._waiting.get(holder)

    async def cancel(self, waiting: Waiting) -> bool:
        """Leave a mark in place of what waits; False as `Schedules.cancel`."""
        if waiting.is_cancelled:
            return True
        if self._standing(waiting.holder) != waiting.sequence:
            return False
        self._sequence += 1
        mark = Waiting(
            waiting.holder,
            waiting.at,
            waiting.message,
            "",
            self._sequence,
            self._clock.now(),
            is_cancelled=True,
        )
        self._waiting[waiting.holder] = mark
        self._after(self._window, lambda: self._drop(mark))
        return True

    async def replace(self, waiting: Waiting, message: Message, *, at: datetime) -> bool:
        """Have another message wait in place of one; False as `cancel`."""
        if self._standing(waiting.holder) != waiting.sequence:
            return False
        self.put(message, at=at, holder=waiting.holder)
        return True

    async def find(self, holders: str) -> AsyncIterator[Waiting]:
        """Yield what stands at the holders that match a pattern, the oldest first."""
        for waiting in sorted(self._waiting.values(), key=lambda one: one.sequence):
            if matches(holders, waiting.holder):
                yield waiting

    def put(self, message: Message, *, at: datetime, holder: str) -> int:
        """Have a message wait in place of whatever stands at a holder; return its sequence."""
        self._sequence += 1
        now = self._clock.now()
        waiting = Waiting(holder, at, message, "", self._sequence, now)
        self._waiting[holder] = waiting
        if message.id is not None:
            id = message.id
            self._ids[id] = self._sequence
            self._after(self._window, lambda: self._forget(id))
        self._after((at - now).total_seconds(), lambda: self._fire(waiting))
        return waiting.sequence

    def receipt(self, message: Message, sequence: int, *, duplicate: bool = False) -> Receipt:
        """Return the receipt of a message that waits."""
        return Receipt(message.headers.get(h.ID, ""), "", sequence, duplicate, self._driver)

    def _after(self, seconds: float, action: Action) -> None:
        self.timers.at(self.timers.now + seconds, action)

    def _fire(self, waiting: Waiting) -> None:
        if self._standing(waiting.holder) == waiting.sequence:
            self._drop(waiting)
            self._takers[-1](waiting.message, waiting.at)

    def _drop(self, waiting: Waiting) -> None:
        """Forget what stands at a holder, if it still is that."""
        if self._standing(waiting.holder) == waiting.sequence:
            del self._waiting[waiting.holder]

    def _forget(self, id: str) -> None:
        self._ids.pop(id, None)

    def _standing(self, holder: str) -> int:
        found = self._waiting.get(holder)
        return 0 if found is None else found.sequence
