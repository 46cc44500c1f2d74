"""The seam between the bus and what keeps events until their time: `Schedules`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from eventbus.drivers.receipt import Receipt
from eventbus.envelope import Message

__all__ = ("Schedules", "Waiting")


@dataclass(frozen=True, slots=True)
class Waiting:
    """What stands at a holder: a message that waits for its time, or the mark of a cancelled one."""

    holder: str
    """The subject where it waits; one message at a time does."""
    at: datetime
    """When it fires or, if it is cancelled, would have fired, in UTC."""
    message: Message
    """What will be published, to its subject; without a body if it is cancelled."""
    stream: str
    """Where it is stored."""
    sequence: int
    """Which of those that waited there it is; it changes with every `add` and `replace`."""
    stored_at: datetime
    """When it was put there, in UTC."""
    is_cancelled: bool = False


class Schedules(Protocol):
    """Messages that wait for their time on the side of the driver, each at a holder of its own.

    What waits survives restarts, where the driver is durable, and the age limit of streams, and fires once: it is published to
    its subject at its time or up to the driver's tick later, never before. All times are those
    of `now`.

    Everything here raises `DriverError` where that isn't known or can't be done now.
    """

    async def now(self) -> datetime:
        """Return the time by which messages fire, in UTC; it isn't this machine's clock."""
        ...

    async def add(
        self, message: Message, *, at: datetime, holder: str, instead_of: int = 0
    ) -> Receipt:
        """Store a message so that it is published to its subject at a time, not before.

        A time that has passed is now. A message id that was used within the duplicate window
        gives a receipt that says so, and changes nothing. Retried as a publish is.

        Args:
            message: What to publish, with the subject it goes to.
            at: When.
            holder: Where it waits.
            instead_of: The sequence of what it takes the place of; 0 where nothing waits.

        Raises:
            SequenceConflictError: Something else stands at the holder; perhaps this very message,
                where the answer to an earlier try was lost.
            PublishError: As `eventbus.drivers.base.Driver.publish`.
        """
        ...

    async def read(self, holder: str) -> Waiting | None:
        """Return what stands at a holder; None where nothing does, so also what has fired."""
        ...

    async def cancel(self, waiting: Waiting) -> bool:
        """Leave a mark in place of what waits; False where it has fired, or another one waits.

        Of one that is cancelled it tells again.

        It has fired, or it never will: the answer is exact, also in the moment of its time. The
        mark goes by itself after the duplicate window.
        """
        ...

    async def replace(self, waiting: Waiting, message: Message, *, at: datetime) -> bool:
        """Have another message wait in place of one; False as `cancel`, with nothing changed."""
        ...

    def find(self, holders: str) -> AsyncIterator[Waiting]:
        """Yield what stands at the holders that match a pattern, the oldest first."""
        ...
