"""What a driver hands over (`Delivery`) and what may be decided about it (`Decision`)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias, TypeGuard

from eventbus.envelope import Message

__all__ = (
    "Ack",
    "AckedSoon",
    "Arrived",
    "DeadLetter",
    "Decision",
    "Delivery",
    "Drop",
    "Nak",
    "Outcome",
    "Park",
    "Readable",
    "Reason",
    "Return",
    "can_ack_soon",
    "is_readable",
)


class Outcome(StrEnum):
    """How a delivery ended; the label of metrics and logs."""

    OK = "ok"
    RETRY = "retry"
    PARK = "park"
    DEAD = "dead"
    DROPPED = "dropped"
    DUPLICATE = "duplicate"
    RAISED = "raised"
    """Its error went to whoever emitted the event, who waits for its listeners."""


class Reason(StrEnum):
    """Why an event became a dead letter."""

    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    INVALID = "invalid"
    UNKNOWN_EVENT = "unknown_event"
    CRASH = "crash"
    REJECTED = "rejected"
    EXPIRED = "expired"
    KEY_PARKED = "key_parked"


class Delivery(Protocol):
    """One message in our hands until it is settled; a slot of its listener is taken meanwhile.

    Only `eventbus.dispatch` and, for what nobody started, the worker settle it. Settling twice
    does nothing the second time, also where the first raised; the slot is free after either.
    """

    @property
    def message(self) -> Message:
        """The message, its headers by lower-case name."""
        ...

    @property
    def stream(self) -> str:
        """The stream that it is stored in."""
        ...

    @property
    def sequence(self) -> int:
        """Its sequence in that stream."""
        ...

    @property
    def stored_at(self) -> datetime:
        """When the server stored it, in UTC."""
        ...

    @property
    def deliveries(self) -> int:
        """How often the server has handed it out, this time included; not the attempts."""
        ...

    @property
    def lost(self) -> bool:
        """Whether it may be somebody else's by now, so that nothing may begin with it any more."""
        ...

    async def ack(self) -> None:
        """Tell the server that it is done with, and wait until the server knows.

        Raises:
            SettleError: The server didn't confirm; it will deliver the message again.
        """
        ...

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back, to be delivered again after ``delay`` seconds."""
        ...

    async def term(self, reason: str) -> None:
        """Tell the server never to deliver it again. Its dead letter must be stored before."""
        ...

    async def in_progress(self) -> None:
        """Start its ack wait anew; never raises, a lost heartbeat is the next one's work."""
        ...


class Arrived:
    """A message as it came: bytes, of which only what somebody asks for is read."""

    __slots__ = ("data", "head", "subject_bytes")

    def __init__(self, subject: bytes, head: bytes, data: bytes) -> None:
        self.subject_bytes = subject
        """What it was published to."""
        self.head = head
        """The lines of its headers; empty where there are none, or they aren't at hand."""
        self.data = data
        """The body."""


class AckedSoon(Delivery, Protocol):
    """A delivery that needs nobody who waits for its acknowledgement."""

    def ack_soon(self, done: Callable[[bool], None]) -> None:
        """Acknowledge it, and call ``done`` once: True when the server knows.

        False where it can't be told this way: then nothing is settled, and `ack` is to be awaited.
        """
        ...


class Readable(AckedSoon, Protocol):
    """A delivery that hands out its bytes, so that only what somebody asks for need be read."""

    @property
    def arrived(self) -> Arrived:
        """The message as it came; its head is empty where the headers are only in `message`."""
        ...


def is_readable(delivery: Delivery) -> TypeGuard[Readable]:
    """Tell whether a delivery is a `Readable`."""
    return hasattr(delivery, "arrived")


def can_ack_soon(delivery: Delivery) -> TypeGuard[AckedSoon]:
    """Tell whether a delivery is an `AckedSoon`."""
    return hasattr(delivery, "ack_soon")


@dataclass(frozen=True, slots=True)
class Ack:
    """It is handled."""


@dataclass(frozen=True, slots=True)
class Nak:
    """Try it again after a delay; the server waits, no slot is taken."""

    delay: float


@dataclass(frozen=True, slots=True)
class Park:
    """Try it again after a long delay, without holding one of the consumer's pending places."""

    delay: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Keep it as a dead letter; no further attempt."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """The listener is done with it on purpose: acknowledged, counted and logged."""

    reason: str
    duplicate: bool = False
    """Whether it was handled before, and this delivery is one too many."""


@dataclass(frozen=True, slots=True)
class Return:
    """Give it back as if it had never run: no attempt, whatever became of the run."""

    delay: float = 0.0
    park: bool = False
    """Without holding one of the consumer's pending places, where that can be."""


Decision: TypeAlias = Ack | Nak | Park | DeadLetter | Drop
