"""Event ids: fresh ones that sort by time, derived ones that repeat when the work repeats."""

import hashlib
import os
import threading
import time
from random import Random
from uuid import UUID

__all__ = ("MAX_ID", "derived_id", "is_id", "uuid7")

MAX_ID = 128
"""The longest id accepted, in characters."""

_RANDOM_BITS = 73
_TAIL = (1 << 47) - 1
"""Of the 48 last bits; what is above leaves room to count up."""

# Seeded by the system; a system call for each id would take most of its time.
# Not the shared generator of `random`: two processes may have given that the same seed.
_generator = Random()  # noqa: S311 - ids have to differ, they are no secrets
_random = _generator.getrandbits

_lock = threading.Lock()
_last_ms = 0
_start = ""
"""What the ids of this millisecond have in common: the time, and 26 random bits."""
_tail = 0
"""The rest of the last one, random in each millisecond's first id and counted up from there."""


def uuid7() -> str:
    """Return a new uuid7 (RFC 9562): sortable by millisecond, increasing within one process.

    Those of one millisecond are counted up from a random number (RFC 9562 6.2, method 2).
    """
    global _tail  # noqa: PLW0603 - the state that RFC 9562 6.2 asks for
    with _lock:
        now = time.time_ns() // 1_000_000
        if now > _last_ms:
            _begin(now)
        else:
            _tail += 1
        return f"{_start}{_tail:012x}"


def _begin(now: int) -> None:
    global _last_ms, _start, _tail  # noqa: PLW0603 - as above
    random = _random(_RANDOM_BITS)
    stamp, high = f"{now:012x}", random >> 47
    _last_ms, _tail = now, random & _TAIL
    _start = f"{stamp[:8]}-{stamp[8:]}-7{high >> 14:03x}-{0x8000 | high & 0x3FFF:04x}-"


def _differ() -> None:
    """Begin anew after a fork, which copies all of this."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    _generator.seed()
    _begin(_last_ms)


os.register_at_fork(after_in_child=_differ)


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
