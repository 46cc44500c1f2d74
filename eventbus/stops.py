"""`Stops`: when a listener's retries end earlier than its `Retry` says; pure."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from eventbus.delivery import DeadLetter, Decision, Nak, Park
from eventbus.errors import Signal
from eventbus.event import Event
from eventbus.headers import render_time
from eventbus.retry import reason_of

__all__ = ("CanRetry", "Stops", "Until")

CanRetry: TypeAlias = Callable[[Event, Exception], bool]
"""Tells of an event and what its run raised whether it may be tried again."""
Until: TypeAlias = Callable[[Event], datetime]
"""Returns the time after which an event isn't tried again."""


@dataclass(frozen=True, slots=True)
class Stops:
    """What ends the retries of one listener; nothing where nothing is set."""

    max_exceptions: int | None = None
    """So many runs may end with an exception; `RetryLater` and crashes aren't counted."""
    can_retry: CanRetry | None = None
    until: Until | None = None

    def judge(
        self,
        decision: Decision,
        error: Exception | None,
        event: Event,
        *,
        raised: int,
        now: datetime,
    ) -> Decision:
        """Return the decision, or a dead letter where it would try again and mustn't.

        Args:
            decision: What the listener's `Retry` has decided.
            error: What the run raised.
            event: What was handled.
            raised: How many runs have ended with an exception, this one included.
            now: The time.
        """
        if error is None or not isinstance(decision, (Nak, Park)):
            return decision
        detail = self._problem(decision.delay, error, event, raised=raised, now=now)
        return DeadLetter(reason_of(error), detail) if detail else decision

    def is_over(self, event: Event, now: datetime) -> bool:
        """Tell whether the time is over in which an event may be tried again."""
        until = self._until(event)
        return until is not None and now >= until

    def _problem(
        self, delay: float, error: Exception, event: Event, *, raised: int, now: datetime
    ) -> str:
        if self.max_exceptions is not None and raised >= self.max_exceptions:
            return f"gave up after {raised} exceptions"
        if not isinstance(error, Signal) and not self._may(event, error):
            return "can_retry said no"
        until = self._until(event)
        if until is not None and now.timestamp() + delay > until.timestamp():
            return f"retry_until {render_time(until)} comes before its next attempt"
        return ""

    def _may(self, event: Event, error: Exception) -> bool:
        try:
            return self.can_retry is None or bool(self.can_retry(event, error))
        except Exception:  # noqa: BLE001 - a function that fails must not cost the retry
            return True

    def _until(self, event: Event) -> datetime | None:
        try:
            until = None if self.until is None else self.until(event)
        except Exception:  # noqa: BLE001 - as above
            return None
        return until if until is None or until.tzinfo is not None else None
