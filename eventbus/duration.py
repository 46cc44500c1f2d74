"""Durations as users write them: seconds, `timedelta`, or ``"5m"``."""

import re
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

__all__ = ("Duration", "moment", "seconds")

Duration: TypeAlias = float | timedelta | str
"""Seconds, a `timedelta`, or a number with a unit: ``"250ms" "5s" "5m" "2h" "7d"``."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 100 * 365 * 86400.0
"""A century: NATS counts nanoseconds in 63 bits, and times end with the year 9999."""
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")


def seconds(value: Duration) -> float:
    """Return a duration in seconds.

    Raises:
        ValueError: It is negative, longer than a century, or no duration at all.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, str):
        match = _TEXT.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} isn't a duration; write seconds or '250ms', '5m', '2h'")
        result = float(match[1]) * _UNITS[match[2] or "s"]
    else:
        result = value
    try:
        fits = not isinstance(value, bool) and 0 <= result <= _LONGEST
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{value!r} isn't a duration; it must be from 0 s to 100 years")
    return float(result)


def moment(value: Duration | datetime, since: datetime) -> datetime:
    """Return a time in UTC: the one that is given, or the one so long after another one.

    Raises:
        ValueError: It has no time zone, is more than a century away, or is no time at all.
    """
    if not isinstance(value, datetime):
        return since + timedelta(seconds=seconds(value))
    if value.utcoffset() is None:
        raise ValueError(
            f"{value.isoformat()} has no time zone, so it isn't a moment; make it aware, as with "
            "datetime(..., tzinfo=ZoneInfo('Europe/Paris')) or tzinfo=UTC"
        )
    try:
        result = value.astimezone(UTC)
    except OverflowError:
        result = None
    if result is None or abs((result - since).total_seconds()) > _LONGEST:
        raise ValueError(f"{value.isoformat()} is more than 100 years away")
    return result
