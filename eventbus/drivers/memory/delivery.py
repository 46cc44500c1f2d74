"""`MemoryDelivery`: one message in somebody's hands, until it is settled or its lease ends."""

from datetime import datetime
from typing import Protocol

from eventbus.drivers.memory.stream import Stored
from eventbus.drivers.timers import Action
from eventbus.envelope import Message
from eventbus.errors import SettleError

__all__ = ("Holder", "MemoryDelivery", "Owner")


class Owner(Protocol):
    """The durable that a delivery comes from."""

    def done(self, delivery: "MemoryDelivery") -> None:
        """Never hand out that message again."""
        ...

    def again(self, delivery: "MemoryDelivery", delay: float) -> None:
        """Hand out that message again, after a delay."""
        ...

    def lease(self) -> float:
        """Return when a lease that begins now ends."""
        ...

    @property
    def now(self) -> float:
        """The monotonic time."""
        ...

    @property
    def ack_wait(self) -> float:
        """How long a lease lasts."""
        ...


class Holder(Protocol):
    """The consumer that a delivery was handed to."""

    def release(self, delivery: "MemoryDelivery") -> None:
        """Free its slot: it is settled."""
        ...


class MemoryDelivery:
    """One message in our hands; the contract is that of `eventbus.delivery.Delivery`."""

    __slots__ = (
        "_holder",
        "_owner",
        "_settled",
        "_stored",
        "_superseded",
        "deliveries",
        "end",
        "stream",
    )

    def __init__(
        self, stored: Stored, stream: str, deliveries: int, owner: Owner, holder: Holder
    ) -> None:
        self.stream = stream
        """The stream that it is stored in."""
        self.deliveries = deliveries
        """How often it was handed out, this time included; not the attempts."""
        self._stored = stored
        self._owner = owner
        self._holder = holder
        self.end = owner.lease()
        """When its lease ends."""
        self._settled = False
        self._superseded = False

    @property
    def message(self) -> Message:
        """The message, its headers by lower-case name."""
        return self._stored.message

    @property
    def sequence(self) -> int:
        """Its sequence in that stream."""
        return self._stored.sequence

    @property
    def stored_at(self) -> datetime:
        """When it was stored, in UTC."""
        return self._stored.at

    @property
    def lost(self) -> bool:
        """Whether it may be somebody else's by now."""
        return self._superseded or self._owner.now >= self.end

    async def ack(self) -> None:
        """Be done with it.

        Raises:
            SettleError: It isn't ours any more; it is delivered again.
        """
        if self._settled:
            return
        is_lost = self.lost
        self._settle(lambda: self._owner.done(self))
        if is_lost:
            raise SettleError(
                f"'{self.message.subject}' {self.stream}:{self.sequence} wasn't acknowledged: it "
                f"isn't ours any more, after {self._owner.ack_wait:g} s without a sign of life"
            )

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back, to be delivered again after ``delay`` seconds."""
        self._settle(lambda: self._owner.again(self, delay))

    async def term(self, reason: str) -> None:
        """Never have it delivered again."""
        self._settle(lambda: self._owner.done(self))

    async def in_progress(self) -> None:
        """Start its ack wait anew."""
        if not (self._settled or self.lost):
            self.end = self._owner.lease()

    def supersede(self) -> None:
        """Take note that the same message is delivered again."""
        self._superseded = True

    def _settle(self, how: Action) -> None:
        if self._settled:
            return
        self._settled = True
        if not self.lost:
            how()
        self._holder.release(self)
