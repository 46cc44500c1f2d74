"""Rules: when a recurring event ticks; pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError

__all__ = ("Cron", "Every", "Rule")

FIELDS = 5
_EPOCH = datetime.fromtimestamp(0, UTC)


class Rule(Protocol):
    """Says when; equal rules have equal texts."""

    def after(self, time: datetime) -> datetime:
        """Return the first tick after a time, in UTC."""
        ...

    def __str__(self) -> str:
        """Return it as it is declared."""
        ...


@dataclass(frozen=True, slots=True)
class Cron:
    """By the clock on the wall of a place, as Debian's cron does it.

    In the night when clocks go forward, what falls into the hour that isn't there comes at its
    end. When they go back, what names its hour comes once, in the first of the two; what comes
    every hour, or every few minutes, comes in both.

    Raises:
        DeclarationError: The expression isn't five fields of cron, or never comes true; or there
            is no such time zone.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        """Refuse what can't be worked with."""
        from cronsim import CronSimError

        if len(self.expression.split()) != FIELDS:
            raise DeclarationError(
                f"cron {self.expression!r} must have {FIELDS} fields: minute, hour, day of the "
                "month, month, day of the week; for seconds use every()"
            )
        zone = _zone(self.timezone)
        try:
            self._next(datetime(2026, 1, 1, tzinfo=zone))
        except CronSimError as exc:
            raise DeclarationError(f"cron {self.expression!r} is wrong: {exc}") from exc
        except StopIteration:
            raise DeclarationError(f"cron {self.expression!r} never comes true") from None

    def after(self, time: datetime) -> datetime:
        """Return the first tick after a time, in UTC."""
        start = time.astimezone(_zone(self.timezone))
        found = self._next(start)
        while found <= time:  # in the second of two equal hours it looks from the first
            start += timedelta(hours=1)
            found = self._next(start)
        return found

    def _next(self, start: datetime) -> datetime:
        from cronsim import CronSim

        return next(CronSim(self.expression, start)).astimezone(UTC)

    def __str__(self) -> str:
        """Return the expression and the time zone."""
        return f"cron {self.expression} {self.timezone}"


@dataclass(frozen=True, slots=True)
class Every:
    """At whole multiples of an interval since 1970 in UTC, so that all processes agree.

    Raises:
        DeclarationError: It is no duration, or shorter than a second.
    """

    interval: Duration

    def __post_init__(self) -> None:
        """Refuse what no server keeps up with."""
        try:
            length = seconds(self.interval)
        except ValueError as exc:
            raise DeclarationError(f"every: {exc}") from exc
        if length < 1:
            raise DeclarationError(f"every {self.interval} is too often; at most once a second")

    def after(self, time: datetime) -> datetime:
        """Return the first tick after a time, in UTC."""
        interval = timedelta(seconds=seconds(self.interval))
        return _EPOCH + ((time - _EPOCH) // interval + 1) * interval

    def __str__(self) -> str:
        """Return the interval in seconds."""
        return f"every {seconds(self.interval):g}s"


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise DeclarationError(
            f"there is no time zone {name!r} here; write one like 'Europe/Paris', and install "
            "tzdata where the system has none"
        ) from exc
