"""Times as they are given on the command line."""

from datetime import UTC, datetime, timedelta

import typer

from eventbus.clock import SystemClock
from eventbus.duration import seconds
from eventbus.headers import parse_time

__all__ = ("moment",)


def moment(option: str, text: str) -> datetime:
    """Return a time, or how long ago it was."""
    try:
        return SystemClock().now() - timedelta(seconds=seconds(text))
    except ValueError:
        time = parse_time(text)
    if time is None:
        problem = f"{text!r} is neither a time like 2026-03-01T10:00Z nor how long ago, like 2h"
        raise typer.BadParameter(problem, param_hint=option)
    return time.astimezone(UTC)
