"""What the processes of a service agree on to keep a limit: records changed by compare-and-set."""

from dataclasses import dataclass
from typing import Protocol

from eventbus.clock import Clock
from eventbus.subject import encode_key

__all__ = ("LimitLog", "LimitRecord", "Limits", "LocalLimits")


@dataclass(frozen=True, slots=True)
class LimitRecord:
    """What is recorded at a place."""

    body: bytes
    """Empty where the place was freed."""
    revision: int
    """Grows with each change; a change is made over the revision that was read."""


class LimitLog(Protocol):
    """Keeps small records where every process of a service sees them, for a time each."""

    async def read(self, place: str) -> LimitRecord | None:
        """Return what is recorded; None where nothing is, or where it was kept long enough.

        Raises:
            DriverError: It can't be read now.
        """
        ...

    async def write(self, place: str, body: bytes, *, over: int, keep: float) -> int | None:
        """Record it in place of a revision (0: of nothing), for at least ``keep`` seconds.

        Returns the new revision; None where somebody else has changed it since.

        Raises:
            DriverError: It may or may not be recorded.
        """
        ...


class LocalLimits:
    """A `LimitLog` for the one process that there is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, tuple[LimitRecord, float]] = {}
        self._revision = 0

    async def read(self, place: str) -> LimitRecord | None:
        """Return what is recorded; None where nothing is, or where it was kept long enough."""
        return self._found(place)

    async def write(self, place: str, body: bytes, *, over: int, keep: float) -> int | None:
        """Record it in place of a revision; None where it was changed since."""
        found = self._found(place)
        if over != (found.revision if found is not None else 0):
            return None
        self._revision += 1
        self._records[place] = LimitRecord(body, self._revision), self._clock.monotonic() + keep
        return self._revision

    def _found(self, place: str) -> LimitRecord | None:
        record, until = self._records.get(place, (None, 0.0))
        if record is not None and self._clock.monotonic() >= until:
            del self._records[place]
            return None
        return record


@dataclass(frozen=True, slots=True)
class Limits:
    """What a limit of one listener works with."""

    log: LimitLog
    durable: str
    clock: Clock

    def place(self, *names: str) -> str:
        """Return where a limit of this listener is recorded; names may hold anything."""
        return ".".join((self.durable, "limit", *(encode_key(name) for name in names)))
