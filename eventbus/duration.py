"""Durations as users write them: seconds, `timedelta`, or ``"5m"``."""

import math
import re
from datetime import timedelta
from typing import TypeAlias

__all__ = ("Duration", "seconds")

Duration: TypeAlias = float | timedelta | str
"""Seconds, a `timedelta`, or a number with a unit: ``"250ms" "5s" "5m" "2h" "7d"``."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")


def seconds(value: Duration) -> float:
    """Return a duration in seconds.

    Raises:
        ValueError: It is negative, not finite, or no duration at all.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, str):
        match = _TEXT.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} isn't a duration; write seconds or '250ms', '5m', '2h'")
        result = float(match[1]) * _UNITS[match[2] or "s"]
    else:
        result = float(value)
    if not math.isfinite(result) or result < 0:
        raise ValueError(f"{value!r} isn't a duration; it must be finite and not negative")
    return result
