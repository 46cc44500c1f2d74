"""`MemorySchedules`: what waits for its time in a broker of this process."""

from collections.abc import AsyncIterator
from datetime import datetime

from eventbus.drivers.memory.broker import MemoryBroker
from eventbus.drivers.receipt import Receipt
from eventbus.drivers.schedules import Waiting
from eventbus.envelope import Message
from eventbus.errors import SequenceConflictError
from eventbus.headers import TYPE
from eventbus.subject import matches

__all__ = ("MemorySchedules",)


class MemorySchedules:
    """A `Schedules` on a broker; it fires at the time of the broker's clock, without a tick."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def now(self) -> datetime:
        """Return the time of the broker's clock."""
        return self._broker.clock.now()

    async def add(
        self, message: Message, *, at: datetime, holder: str, instead_of: int = 0
    ) -> Receipt:
        """Store a message so that it is published at a time; see `Schedules`."""
        if self._standing(holder) != instead_of:
            name = message.headers.get(TYPE) or message.subject
            raise SequenceConflictError(name=name, subject=holder)
        return self._broker.later.schedule(message, at=at, holder=holder)

    async def read(self, holder: str) -> Waiting | None:
        """Return what stands at a holder; None where nothing does."""
        return self._broker.later.waiting.get(holder)

    async def cancel(self, waiting: Waiting) -> bool:
        """Leave a mark in place of what waits; False where it has fired, or another one waits."""
        if waiting.is_cancelled:
            return True
        if self._standing(waiting.holder) != waiting.sequence:
            return False
        self._broker.later.cancel(waiting.holder)
        return True

    async def replace(self, waiting: Waiting, message: Message, *, at: datetime) -> bool:
        """Have another message wait in place of one; False as `cancel`."""
        if self._standing(waiting.holder) != waiting.sequence:
            return False
        self._broker.later.schedule(message, at=at, holder=waiting.holder)
        return True

    async def find(self, holders: str) -> AsyncIterator[Waiting]:
        """Yield what stands at the holders that match a pattern, the oldest first."""
        for waiting in sorted(self._broker.later.waiting.values(), key=lambda one: one.sequence):
            if matches(holders, waiting.holder):
                yield waiting

    def _standing(self, holder: str) -> int:
        found = self._broker.later.waiting.get(holder)
        return 0 if found is None else found.sequence
