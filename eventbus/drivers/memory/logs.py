"""Parked keys, kept as long as the broker."""

from eventbus.parked import ParkedKey

__all__ = ("MemoryParked",)


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
