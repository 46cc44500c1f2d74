"""The seam between the bus and a database: rows that wait, the transaction around an emit."""

import zlib
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeAlias

from eventbus import headers as h
from eventbus.envelope import Message

__all__ = (
    "IN_OUTBOX",
    "Claim",
    "Deferred",
    "OutboxState",
    "OutboxStore",
    "Row",
    "Transaction",
    "lane_of",
    "open_transaction",
    "outside_transactions",
    "within",
)

IN_OUTBOX: Final = "outbox"
"""What receipts and metrics call the driver of an event that waits in the outbox."""
Deferred: TypeAlias = Callable[[], Awaitable[None]]
"""What is done once a transaction has committed."""


@dataclass(frozen=True, slots=True)
class Row:
    """An event that waits in the outbox."""

    sequence: int
    """Its place: rows of one key go in this order."""
    message: Message
    created_at: datetime
    tries: int = 0
    """How often it was refused."""
    publish_at: datetime | None = None
    """The server is to keep it until then."""
    reason: str = ""
    """Why it is quarantined; empty where it isn't."""

    @property
    def name(self) -> str:
        """The event's name."""
        return self.message.headers.get(h.TYPE, "")

    @property
    def order(self) -> str | int:
        """What it has to be in order with: its key, or nothing but itself."""
        return h.ordering_key(self.message.headers) or self.sequence


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How an outbox is."""

    pending: int
    oldest: float
    """Age in seconds of the oldest row that waits; 0 where none does."""
    quarantined: int


class Claim(Protocol):
    """Rows that nobody else relays meanwhile, and what becomes of them."""

    @property
    def rows(self) -> Sequence[Row]:
        """The oldest rows of some lanes, in order."""
        ...

    def done(self, row: Row) -> None:
        """Have a row removed: the stream has its event."""
        ...

    def refused(self, row: Row) -> None:
        """Count a try."""
        ...

    def quarantine(self, row: Row, reason: str) -> None:
        """Set a row aside, so that it holds up nothing any more."""
        ...


class OutboxStore(Protocol):
    """Where a relay takes its rows from."""

    def claim(
        self, limit: int, blocked: Sequence[str | int] = ()
    ) -> AbstractAsyncContextManager[Claim]:
        """Give up to ``limit`` rows; what was said of them is written when the block is left.

        ``blocked`` are keys and sequences to leave out. The rows of a key are in one claim at a
        time, in whatever process. A process that dies gives back what it had claimed.

        Raises:
            StoreError: The database can't be asked now.
        """
        ...

    async def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` after each commit that may have brought rows, until cancelled.

        Raises:
            StoreError: The database can't be watched now.
        """
        ...

    async def state(self) -> OutboxState:
        """Count what waits and what is quarantined.

        Raises:
            StoreError: The database can't be asked now.
        """
        ...


class Transaction(Protocol):
    """What emits take part in: a transaction of the user's, or the batch of a listener's run."""

    @property
    def is_open(self) -> bool:
        """Whether emits take part in it still; else they go direct."""
        ...

    @property
    def carrier(self) -> str:
        """What receipts and metrics call the driver of what waits in it."""
        ...

    @property
    def table(self) -> str:
        """What receipts call the place where it waits."""
        ...

    @property
    def driver(self) -> object | None:
        """What all that is in it goes through; None for the service's own driver."""
        ...

    async def add(self, message: Message, *, publish_at: datetime | None = None) -> int:
        """Store a message in it and return its place in the outbox."""
        ...

    def defer(self, job: Deferred) -> None:
        """Do something after the root transaction has committed, and not if it rolls back."""
        ...

    def tell(self, tell: Callable[[], None]) -> None:
        """Have observers told of an emit: now, or once it is known to be stored."""
        ...


_current: Final[ContextVar[Transaction | None]] = ContextVar("eventbus_transaction", default=None)


def open_transaction() -> Transaction | None:
    """Return the transaction that emits take part in here; None where they go direct."""
    transaction = _current.get()
    # A task that was started in the block may outlive it.
    return transaction if transaction is not None and transaction.is_open else None


@contextmanager
def within(transaction: Transaction | None) -> Generator[None]:
    """Make a transaction the one that emits take part in, for the duration of a block."""
    token = _current.set(transaction)
    try:
        yield
    finally:
        _current.reset(token)


def outside_transactions() -> AbstractContextManager[None]:
    """Let emits go direct for the duration of a block."""
    return within(None)


def lane_of(order: str, lanes: int) -> int:
    """Return the lane of a row: the same for all of one key, any where it has none."""
    return zlib.crc32(order.encode()) % lanes
