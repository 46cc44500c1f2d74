"""Attempts and parked keys, kept as long as the broker."""

from eventbus.attempts import History
from eventbus.parked import ParkedKey

__all__ = ("MemoryAttempts", "MemoryParked")


class MemoryAttempts:
    """An `AttemptLog`."""

    def __init__(self) -> None:
        self._histories: dict[str, History] = {}

    async def read(self, place: str) -> History:
        """Return what is recorded; an empty history where nothing is."""
        return self._histories.get(place, History())

    async def write(self, place: str, history: History) -> None:
        """Record it."""
        self._histories[place] = history

    async def forget(self, place: str) -> None:
        """Drop the record."""
        self._histories.pop(place, None)


class MemoryParked:
    """A `ParkedLog`."""

    def __init__(self) -> None:
        self._parked: dict[str, dict[str, ParkedKey]] = {}

    async def keys(self, durable: str) -> frozenset[str]:
        """Return the keys that a durable's listener has parked."""
        return frozenset(self._parked.get(durable, ()))

    async def read(self, durable: str, key: str) -> ParkedKey | None:
        """Return what is recorded; None for a key that isn't parked."""
        return self._parked.get(durable, {}).get(key)

    async def write(self, durable: str, parked: ParkedKey) -> None:
        """Record it in place of what was recorded of that key."""
        self._parked.setdefault(durable, {})[parked.key] = parked

    async def free(self, durable: str, key: str) -> None:
        """Drop the record."""
        self._parked.get(durable, {}).pop(key, None)
