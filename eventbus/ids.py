"""Event ids: fresh ones that sort by time, derived ones that repeat when the work repeats."""

import hashlib
import os
import threading
import time
from uuid import UUID

__all__ = ("MAX_ID", "derived_id", "is_id", "uuid7")

MAX_ID = 128
"""The longest id accepted, in characters."""

_lock = threading.Lock()
_last_ms = 0
_counter = 0


def uuid7() -> str:
    """Return a new uuid7 (RFC 9562): sortable by millisecond, increasing within one process."""
    global _last_ms, _counter  # noqa: PLW0603 - the counter is the state that RFC 9562 6.2 asks for
    random = int.from_bytes(os.urandom(8), "big")
    with _lock:
        now = time.time_ns() // 1_000_000
        if now > _last_ms:
            _last_ms, _counter = now, random & 0x7FF
        else:
            _counter += 1
            if _counter > 0xFFF:
                _last_ms, _counter = _last_ms + 1, 0
        stamp, sequence = _last_ms, _counter
    value = stamp << 80 | 0x7 << 76 | sequence << 64 | 0b10 << 62 | random >> 2
    return str(UUID(int=value))


def derived_id(*parts: str | int | bytes) -> str:
    """Return an id that is equal for equal parts, and for practical purposes only then.

    Used for what a listener emits, so that a redelivery emits the same ids again (DESIGN 4.9).
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
