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

_lock = threading.Lock()
_last_ms = 0
_counter = 0
_stamp = ""

# Seeded by the system, again after a fork; a system call for each id would take most of its time.
# Not the shared generator of `random`: two processes may have given that the same seed.
_generator = Random()  # noqa: S311 - ids have to differ, they are no secrets
_random = _generator.getrandbits
os.register_at_fork(after_in_child=_generator.seed)


def uuid7() -> str:
    """Return a new uuid7 (RFC 9562): sortable by millisecond, increasing within one process."""
    global _last_ms, _counter, _stamp  # noqa: PLW0603 - the state that RFC 9562 6.2 asks for
    random = _random(62)
    with _lock:
        now = time.time_ns() // 1_000_000
        if now > _last_ms:
            _last_ms, _counter, _stamp = now, random & 0x7FF, _rendered(now)
        else:
            _counter += 1
            if _counter > 0xFFF:
                _last_ms, _counter = _last_ms + 1, 0
                _stamp = _rendered(_last_ms)
        stamp, sequence = _stamp, _counter
    tail = "%016x" % (1 << 63 | random)
    return f"{stamp}-7{sequence:03x}-{tail[:4]}-{tail[4:]}"


def _rendered(milliseconds: int) -> str:
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}"


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
