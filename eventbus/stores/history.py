"""`StoredEvent`: a row of the event store; `Which`: what a query asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

__all__ = ("StoredEvent", "Which")


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was emitted, with everything that travelled with it."""

    id: str
    name: str
    version: int
    key: str | None
    source: str
    correlation_id: str
    causation_id: str | None
    time: datetime
    headers: Mapping[str, str]
    """The emitter's own, and the trace."""
    data: JsonValue
    """The payload, with fields that no class here knows."""
    stream: str
    stream_sequence: int


@dataclass(frozen=True, slots=True)
class Which:
    """Which stored events are asked for; what isn't given doesn't matter."""

    name: str | None = None
    """A name, or the first tokens of one with ``.*`` or ``.>``: ``user.>``."""
    key: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    """Emitted at this time or later."""
    until: datetime | None = None
    """Emitted before this time."""
