"""The seam for atomic listeners: a driver that stores a mark and messages together, or nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import TypeIs

from eventbus import headers as h
from eventbus.drivers.base import Driver, Receipt
from eventbus.envelope import Message
from eventbus.errors import IdConflictError

__all__ = ("MOST", "Atomic", "Mark", "check_same", "is_atomic")

MOST = 999
"""Messages that a mark may have beside it: a server's batch holds 1000."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What says that a run of a listener has handled an event."""

    subject: str
    run: str
    """Which run: no two have the same."""
    sequence: int = 0
    """Where it is stored; of one that isn't yet, what it takes the place of, 0 for nothing."""


class Atomic(Driver, Protocol):
    """A driver with `Features.atomic`."""

    async def marked(self, subject: str) -> Mark | None:
        """Return the last mark on a subject; None where none is left.

        Raises:
            DriverError: It can't be asked now.
        """
        ...

    async def commit(self, mark: Mark, messages: Sequence[Message]) -> Sequence[Receipt]:
        """Store a mark and messages in their order, or nothing of them; return their receipts.

        What is stored already under its id isn't stored again. Tried again within the emit
        timeout, which can't store anything twice. Cancelling it leaves the outcome unknown.

        Raises:
            SequenceConflictError: Another run has left its mark meanwhile.
            PayloadTooLargeError, HeaderError, SubjectError: One of them can't be carried.
            IdConflictError: Another event is stored under the id of one.
            BackpressureError: There is no room for all of them.
            NoStreamError, NotAuthorizedError, NotConnectedError, PublishError: Nothing is stored.
            DriverError: No answer in time; the mark says later what has become of it.
        """
        ...


def is_atomic(driver: Driver) -> TypeIs[Atomic]:
    """Tell whether a driver stores a mark and messages together."""
    return driver.features.atomic


def check_same(message: Message, stored: Message | None, receipt: Receipt) -> None:
    """Refuse a message whose id is taken, unless by the very same event.

    Raises:
        IdConflictError: Another event is stored under it.
    """
    if stored is None:  # it was purged: what its listeners had to do is done
        return
    name = message.headers.get(h.TYPE, message.subject)
    kind = h.lowered(stored.headers).get(h.TYPE, "?")
    if kind != name or stored.body != message.body:
        place = f"'{kind}' at {receipt.stream}:{receipt.sequence}"
        raise IdConflictError(name=name, id=receipt.id, stored=place)
