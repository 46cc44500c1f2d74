"""The seam for room: how full a driver's streams are, how far durables are, and what may be purged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from eventbus.subject import matches

__all__ = ("DurableState", "Fill", "Room", "holders")

HOLDS = 0.1
"""Whoever has less unread than this part of what the slowest has doesn't hold the room."""


@dataclass(frozen=True, slots=True)
class Fill:
    """How full a stream is."""

    stream: str
    messages: int
    bytes: int
    limit: int | None
    """The most bytes it may hold; None for no limit."""
    last: int
    """The sequence of the newest message ever stored."""
    oldest: datetime | None = None
    """When the oldest message was stored; None where it is empty."""

    @property
    def share(self) -> float:
        """The used part, from 0 to 1; 0 where there is no limit."""
        return self.bytes / self.limit if self.limit else 0.0


@dataclass(frozen=True, slots=True)
class DurableState:
    """How far a durable is."""

    durable: str
    filters: tuple[str, ...]
    """Empty for all subjects of the stream."""
    delivered: int
    """The highest sequence that it has handed out, or where it started."""
    acknowledged: int
    """At and below this sequence all that it has handed out is settled."""
    pending: int
    """How many it hasn't handed out."""
    unsettled: int
    """How many are handed out and not settled."""
    redelivered: int = 0
    """How many of those were handed out before."""
    waiting: int = 0
    """Pull requests that wait for events; 0 where nobody works."""
    paused: bool = False
    begin: int = 0
    """The first sequence that it takes; 0 where it began with the first one, or by time."""
    active: datetime | None = None
    """When it last handed out something, or had something settled; else when it was made."""

    @property
    def handled(self) -> int:
        """The sequence at and below which it has nothing left to do.

        Never the stream's end, also where nothing seems pending: the server counts what was stored
        a moment ago only afterwards. Whatever it has handled lies at or below what it was given.
        """
        return self.acknowledged if self.unsettled else self.delivered

    @property
    def unread(self) -> int:
        """How many events it still has to handle."""
        return self.pending + self.unsettled

    def takes(self, subject: str) -> bool:
        """Tell whether its filters match a literal subject."""
        return not self.filters or any(matches(one, subject) for one in self.filters)


def holders(durables: Iterable[DurableState]) -> tuple[str, ...]:
    """Return the durables that hold the room, the one with the most unread events first."""
    behind = sorted((one for one in durables if one.unread), key=lambda one: -one.unread)
    return tuple(one.durable for one in behind if one.unread >= HOLDS * behind[0].unread)


class Room(Protocol):
    """The room in a driver's stream of events, for the janitor.

    Everything here that asks the server raises `DriverError` where it can't say now, and
    `TopologyError` where it refuses.
    """

    @property
    def max_age(self) -> float:
        """Seconds after which events are gone."""
        ...

    @property
    def duplicate_window(self) -> float:
        """Seconds for which a stored event keeps its id from being stored again."""
        ...

    async def events(self) -> Fill:
        """Return how full the stream of events is."""
        ...

    async def later(self) -> Fill:
        """Return how full the stream of what waits is; its limit is that of the settings.

        From then on the driver refuses to let more wait while it is over it.
        """
        ...

    async def durables(self) -> Sequence[DurableState]:
        """Return every durable of the stream of events; never without one that there is."""
        ...

    async def subjects(self) -> Sequence[str]:
        """Return the subjects of events that are stored."""
        ...

    async def retries(self) -> Sequence[str]:
        """Return the subjects of retries that are stored; each is one listener's."""
        ...

    async def stored_before(self, time: datetime) -> int:
        """Return the sequence below which everything is older than ``time``."""
        ...

    async def oldest_unread(self, durable: DurableState) -> datetime | None:
        """Return when the oldest event that a durable still has to handle was stored."""
        ...

    async def settle_position(self) -> int:
        """Remove what has left the stream of what waits, and return what may be purged.

        At and below that sequence a purge can't lose the place up to which the stream of events
        has taken over what waited.
        """
        ...

    async def purge(self, subject: str, last: int) -> int:
        """Remove what is stored on one subject at and below a sequence; return how many."""
        ...

    async def has_marks(self) -> bool:
        """Tell whether an atomic listener's mark is stored."""
        ...

    async def purge_marks(self, durable: str, last: int) -> int:
        """Remove the marks that a durable's listener left at and below a sequence; tell how many."""
        ...

    async def take_turn(self) -> bool:
        """Become, or stay, the one in the cluster that makes room; False where another one is."""
        ...

    async def pressed(self, within: float) -> bool:
        """Wait until a publish found no room; False where none did ``within`` so many seconds."""
        ...
