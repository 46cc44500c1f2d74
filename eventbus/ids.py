"""Event ids: fresh ones that sort by time, derived ones that repeat when the work repeats."""

import hashlib
import os
import threading
import time
from random import Random
from typing import Final
from uuid import UUID

__all__ = ("MAX_ID", "derived_id", "is_id", "uuid7")

MAX_ID: Final = 128
"""The longest id accepted, in characters."""

_RANDOM_BITS: Final = 73
_TAIL: Final = (1 << 47) - 1
"""Of the 48 last bits; what is above leaves room to count up."""
_ENDS: Final = tuple(f"{number:02x}" for number in range(256))


class _Fresh:
    """Makes uuid7s, for all threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Seeded by the system; a system call for each id would take most of its time.
        # Not the shared generator of `random`: two processes may have given that the same seed.
        self._generator = Random()  # noqa: S311 - ids have to differ, they are no secrets
        self._last_ms = 0
        self._tail = 0
        """The last 48 bits, without the last 8: random at first, then counted up."""
        self._end = 0
        """The last 8 bits."""
        self._first = ""
        """What the ids of this millisecond have in common: the time, and 26 random bits."""
        self._start = ""
        """All but the last 8 bits."""

    def next(self) -> str:
        """Return the next one."""
        self._lock.acquire()  # `with` takes longer than the rest
        try:
            now = time.time_ns() // 1_000_000
            if now > self._last_ms:
                self._begin(now)
            elif self._end < 255:
                self._end += 1
            else:
                self._tail += 1
                self._end = 0
                self._start = f"{self._first}{self._tail:010x}"
            return self._start + _ENDS[self._end]
        finally:
            self._lock.release()

    def _begin(self, now: int) -> None:
        random = self._generator.getrandbits(_RANDOM_BITS)
        stamp, high, low = f"{now:012x}", random >> 47, random & _TAIL
        self._last_ms, self._tail, self._end = now, low >> 8, low & 255
        self._first = f"{stamp[:8]}-{stamp[8:]}-7{high >> 14:03x}-{0x8000 | high & 0x3FFF:04x}-"
        self._start = f"{self._first}{self._tail:010x}"

    def differ(self) -> None:
        """Begin anew after a fork, which copies all of this."""
        self._lock = threading.Lock()  # another thread may have held it
        self._generator.seed()
        self._begin(self._last_ms)


_fresh: Final = _Fresh()
os.register_at_fork(after_in_child=_fresh.differ)


def uuid7() -> str:
    """Return a new uuid7 (RFC 9562): sortable by millisecond, increasing within one process.

    Those of one millisecond are counted up from a random number (RFC 9562 6.2, method 2).
    """
    return _fresh.next()


def derived_id(*parts: str | int | bytes) -> str:
    """Return an id that is equal for equal parts, and for practical purposes only then.

    Used for what a listener emits, so that a redelivery emits the same ids again (ADR 0014).
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    # Version 8 is RFC 9562's "custom": it can't be mistaken for a time-sorted uuid7.
    value = int.from_bytes(digest.digest(), "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return str(UUID(int=value))


def is_id(value: str) -> bool:
    """Tell whether a string may be an id: 1 to 128 printable ASCII characters, no space."""
    return (
        0 < len(value) <= MAX_ID and value.isascii() and value.isprintable() and " " not in value
    )
