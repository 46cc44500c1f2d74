"""The state of streams, durables and breakers as frozen records: measures, and alarms."""

from dataclasses import dataclass
from typing import TypeAlias

from eventbus.drivers.room import DurableState, Fill
from eventbus.middleware.breaker import BreakerState

__all__ = (
    "BreakerChanged",
    "Condition",
    "DurableMeasured",
    "DurablesChecked",
    "JanitorFailed",
    "LaterFilling",
    "RoomMade",
    "RoomShort",
    "StreamMeasured",
    "Unattended",
    "UnreadAging",
)


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A listener's breaker opened, probes, or closed again."""

    service: str
    listener: str
    state: BreakerState
    problem: str = ""
    """What opened it."""


@dataclass(frozen=True, slots=True)
class DurableMeasured:
    """How far a listener's durable is, told every few seconds."""

    service: str
    listener: str
    durable: DurableState
    oldest_unread: float | None
    """Age in seconds of the oldest event it has to handle; None where there is none, or unknown."""


@dataclass(frozen=True, slots=True)
class StreamMeasured:
    """How full the stream of events is, or the one of what waits; told every few seconds."""

    fill: Fill
    later: bool = False


@dataclass(frozen=True, slots=True)
class RoomMade:
    """Events that every durable has handled were purged, because the stream was filling up."""

    stream: str
    events: int


@dataclass(frozen=True, slots=True)
class RoomShort:
    """A stream is nearly full of events that somebody still has to handle: an alarm."""

    stream: str
    bytes: int
    limit: int
    held_by: tuple[str, ...]
    """The durables that hold the room."""


@dataclass(frozen=True, slots=True)
class LaterFilling:
    """Nearly as much waits for later as may: an alarm; then long retries wait in place."""

    stream: str
    bytes: int
    limit: int


@dataclass(frozen=True, slots=True)
class Unattended:
    """Nobody asks for the events that wait for a durable, which hold their room: an alarm."""

    durable: str
    unread: int


@dataclass(frozen=True, slots=True)
class UnreadAging:
    """An event that a durable hasn't handled will soon be too old to be kept: an alarm."""

    durable: str
    unread: int
    age: float
    """Seconds since its oldest one was stored."""
    max_age: float
    """Seconds after which it is gone."""


@dataclass(frozen=True, slots=True)
class DurablesChecked:
    """What the one process that looks at all durables found; empty from all others."""

    unattended: tuple[str, ...]
    aging: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JanitorFailed:
    """Room couldn't be made or measured; it is tried again within seconds."""

    error: Exception


Condition: TypeAlias = (
    BreakerChanged
    | DurableMeasured
    | StreamMeasured
    | RoomMade
    | RoomShort
    | LaterFilling
    | Unattended
    | UnreadAging
    | DurablesChecked
    | JanitorFailed
)
