"""What takes deliveries of a durable: a consumer that shares its work, and one that has it alone."""

from typing import Protocol

from typing_extensions import override

from eventbus.drivers.base import Deliver, InOrder
from eventbus.drivers.memory.delivery import MemoryDelivery

__all__ = ("MemoryConsumer", "PinnedConsumer", "Source")


class Source(Protocol):
    """The durable, as its consumers know it."""

    def pump(self) -> None:
        """Hand out what can be."""
        ...

    async def detach(self, consumer: "MemoryConsumer") -> None:
        """Hand it nothing more."""
        ...

    def is_held_by(self, held: set[MemoryDelivery]) -> bool:
        """Tell whether these are all that is unsettled."""
        ...


class MemoryConsumer:
    """One consumer of one durable."""

    def __init__(self, source: Source, slots: int, deliver: Deliver) -> None:
        self._source = source
        self._slots = slots
        self._deliver = deliver
        self._held: set[MemoryDelivery] = set()
        self._stopped = False

    @property
    def is_free(self) -> bool:
        """Whether another delivery may be handed to it."""
        return not self._stopped and len(self._held) < self._slots

    def take(self, delivery: MemoryDelivery) -> None:
        """Hand it a delivery."""
        self._held.add(delivery)
        self._deliver(delivery)

    def release(self, delivery: MemoryDelivery) -> None:
        """Free the slot of a delivery that is settled."""
        self._held.discard(delivery)
        self._source.pump()

    def looked(self) -> None:
        """Take note that the durable has handed out what it could."""

    def superseded(self, delivery: MemoryDelivery) -> None:
        """Take note that a delivery's lease has ended; its slot is taken until it is settled."""

    def limit(self, slots: int) -> None:
        """Take no more than so many at once from now on, 0 for none; what is in hand stays."""
        self._slots = slots
        self._source.pump()

    async def stop(self) -> None:
        """Take no more; what is in hand stays until it is settled or its lease ends."""
        self._stopped = True
        await self._source.detach(self)


class PinnedConsumer(MemoryConsumer):
    """The one consumer at a time that an ordered durable hands its events to.

    It goes on once all that is unsettled anywhere is in its hands.
    """

    def __init__(self, source: Source, slots: int, taker: InOrder) -> None:
        super().__init__(source, slots, taker.take)
        self._taker = taker
        self._is_open = False

    @override
    def looked(self) -> None:
        """Go on where nobody else has an earlier event any more."""
        if not self._is_open and not self._stopped and self._source.is_held_by(self._held):
            self._is_open = True
            self._taker.resume()

    @override
    def superseded(self, delivery: MemoryDelivery) -> None:
        """Free its slot: its taker doesn't settle what is delivered again."""
        self._held.discard(delivery)
