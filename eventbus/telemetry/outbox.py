"""What happens to an outbox, as frozen records."""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = (
    "OutboxMeasured",
    "OutboxSignal",
    "Quarantined",
    "RelayFailed",
    "RelayRefused",
    "Relayed",
)


@dataclass(frozen=True, slots=True)
class Relayed:
    """An event of the outbox is in the stream, and its row is about to go."""

    name: str
    id: str
    waited: float
    """Seconds since it was emitted."""
    duplicate: bool = False
    """A relay that died had published it before."""
    trace: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class RelayRefused:
    """An event of the outbox couldn't go now; it stays in its place and is tried again."""

    name: str
    id: str
    error: Exception
    tries: int
    """How often it was refused on its own account; 0 where the server takes nothing at all."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An event of the outbox can't go: it is set aside, and the others go on. An alarm."""

    name: str
    id: str
    error: Exception
    trace: str = ""
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class RelayFailed:
    """The database couldn't be asked; the relay tries again within seconds."""

    error: Exception


@dataclass(frozen=True, slots=True)
class OutboxMeasured:
    """How an outbox is, told every few seconds by each of its relays."""

    pending: int
    oldest: float
    """Age in seconds of the oldest event that waits."""
    quarantined: int


OutboxSignal: TypeAlias = Relayed | RelayRefused | Quarantined | RelayFailed | OutboxMeasured
