"""`Retry`: exception and attempt to a decision; back-off as a pure function of attempt and chance."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypeVar

from eventbus.delivery import Ack, DeadLetter, Decision, Drop, Nak, Park, Reason
from eventbus.duration import Duration, seconds
from eventbus.errors import (
    AlreadyHandled,
    DeclarationError,
    Discard,
    EventBusError,
    ListenerTimeoutError,
    Reject,
    RetryLater,
    Signal,
)

__all__ = ("UNLIMITED", "Jitter", "Retry", "Rule", "reason_of")

Jitter: TypeAlias = Literal["full", "none"]
ErrorT = TypeVar("ErrorT", bound=Exception)

UNLIMITED = 999_999
"""Attempts of a listener whose retries end with a time."""
MAX_QUICK = 5
"""Most quick tries: they hold a slot, so waiting long is left to the server."""
QUICK_START = 0.05
"""Seconds before the first quick try, at most; they double."""
QUICK_CAP = 1.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do about one kind of exception."""

    error: type[Exception]
    after: Callable[[Exception], Duration] | None = None
    """Delay before the next attempt, from the exception; None for the curve's."""
    never: bool = False
    """No further attempt: dead letter at once."""


@dataclass(frozen=True)
class Retry:
    """How often and how late a failed event is tried again.

    The delay before attempt n+1 is ``start * factor ** (n - 1)``, at most ``cap``, or the n-th of
    ``delays`` (the last one repeats). With full jitter it is drawn evenly between 0 and that, so
    that listeners which failed together don't come back together. Of the rules the first that
    fits an exception decides. A delay that a rule or a listener gives and that is none is ignored.

    Raises:
        DeclarationError: A value makes no sense.
    """

    attempts: int = 5
    """Total runs, the first included."""
    start: Duration = 1.0
    factor: float = 2.0
    cap: Duration = 300.0
    jitter: Jitter = "full"
    delays: Sequence[Duration] = ()
    """Explicit delays instead of the curve; taken as they are, without jitter."""
    budget: Duration | None = None
    """Longest time from the beginning of the first attempt to the planned beginning of the last
    one: a retry that would be later isn't planned, whatever ``attempts`` are left. None for no
    such limit."""
    quick: int = 0
    """How often an attempt runs the listener again at once, in the process, before it has failed:
    for what is over in the next moment, such as a lost race or a dropped connection."""
    rules: tuple[Rule, ...] = ()
    _start: float = field(init=False, repr=False, compare=False)
    _cap: float = field(init=False, repr=False, compare=False)
    _delays: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _budget: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the values and keep the durations in seconds."""
        if type(self.attempts) is not int or self.attempts < 1:
            raise DeclarationError(
                f"Retry(attempts={self.attempts!r}) must be a whole number from 1"
            )
        if not 1 <= self.factor < math.inf:
            raise DeclarationError(f"Retry(factor={self.factor}) must be at least 1, and finite")
        if self.jitter not in ("full", "none"):
            raise DeclarationError(f"Retry(jitter={self.jitter!r}) must be 'full' or 'none'")
        if isinstance(self.delays, str):  # a sequence too: "30" would be read as 3 and 0
            raise DeclarationError(f"Retry(delays={self.delays!r}) must be a tuple of durations")
        if type(self.quick) is not int or not 0 <= self.quick <= MAX_QUICK:
            raise DeclarationError(
                f"Retry(quick={self.quick!r}) must be a whole number from 0 to {MAX_QUICK}"
            )
        budget = math.inf if self.budget is None else _declared("budget", self.budget)
        object.__setattr__(self, "_budget", budget)
        object.__setattr__(self, "_start", _declared("start", self.start))
        object.__setattr__(self, "_cap", _declared("cap", self.cap))
        object.__setattr__(self, "_delays", tuple(_declared("delays", one) for one in self.delays))

    def on(
        self, error: type[ErrorT], *, after: Duration | Callable[[ErrorT], Duration]
    ) -> "Retry":
        """Return a copy that waits ``after`` (or what it returns) when ``error`` is raised.

        Raises:
            DeclarationError: ``after`` is neither a duration nor a function.
        """
        if callable(after):
            rule = Rule(error, after)  # type: ignore[arg-type]  # only called with its own error
        else:
            fixed = _declared("after", after)
            rule = Rule(error, lambda _: fixed)
        return replace(self, rules=(*self.rules, rule))

    def never(self, *errors: type[Exception]) -> "Retry":
        """Return a copy that makes a dead letter at once when one of ``errors`` is raised."""
        return replace(self, rules=(*self.rules, *(Rule(one, never=True) for one in errors)))

    def delay(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait after a failed attempt; ``chance`` is in [0, 1)."""
        if self._delays:
            return self._delays[min(attempt, len(self._delays)) - 1]
        try:
            delay = min(self._cap, self._start * self.factor ** (attempt - 1))
        except OverflowError:  # long after the cap is reached
            delay = self._cap if self._start else 0.0
        return delay * chance if self.jitter == "full" else delay

    def quick_delay(self, error: Exception, tries: int, chance: float) -> float | None:
        """Return the seconds until the same attempt runs the listener again; None for not at all.

        Only an exception that no rule speaks of is worth it: a rule or a signal says what it
        wants instead. ``tries`` is how often this attempt has run it; ``chance`` is in [0, 1).
        """
        if tries > self.quick or isinstance(error, (EventBusError, Signal)) or self._rule(error):
            return None
        delay = min(QUICK_CAP, QUICK_START * 2.0 ** (tries - 1))
        return delay * chance if self.jitter == "full" else delay

    def decide(
        self,
        error: Exception | None,
        attempt: int,
        *,
        chance: float,
        park_after: float = math.inf,
        elapsed: float = 0.0,
    ) -> Decision:
        """Return what becomes of a delivery whose listener ended with ``error`` (None: well).

        Args:
            error: What the listener raised.
            attempt: Which attempt that was, from 1.
            chance: A number in [0, 1) for the jitter.
            park_after: Delays longer than this don't hold a pending place.
            elapsed: Seconds since the first attempt began.
        """
        match error:
            case None:
                return Ack()
            case AlreadyHandled():
                return Drop("handled before", duplicate=True)
            case Discard(reason=reason):
                return Drop(reason)
            case Reject(reason=reason):
                return DeadLetter(Reason.REJECTED, reason)
            case _:
                pass
        rule = self._rule(error)
        if (rule is not None and rule.never) or _final(error, rule):
            return DeadLetter(reason_of(error), "not retryable")
        if attempt >= self.attempts:
            return DeadLetter(reason_of(error), f"gave up after {attempt} attempts")
        delay = self._wanted(error, rule)
        delay = self.delay(attempt, chance) if delay is None else delay
        if elapsed + delay > self._budget:
            spent = f"gave up after {attempt} attempts in {elapsed:.3g} s"
            return DeadLetter(reason_of(error), f"{spent}, the budget is {self._budget:g} s")
        return Park(delay) if delay > park_after else Nak(delay)

    def _rule(self, error: Exception) -> Rule | None:
        return next((one for one in self.rules if isinstance(error, one.error)), None)

    def _wanted(self, error: Exception, rule: Rule | None) -> float | None:
        """Return the delay that the listener or a rule asks for, None for the curve's."""
        try:
            if isinstance(error, RetryLater) and error.after is not None:
                return seconds(error.after)
            if rule is not None and rule.after is not None:
                return seconds(rule.after(error))
        except Exception:  # noqa: BLE001 - a delay that makes no sense must not hold up the event
            return None
        return None


def _final(error: Exception, rule: Rule | None) -> bool:
    # Faults of our own that trying again can't mend; a rule of the user's wins.
    return rule is None and isinstance(error, EventBusError) and not error.retryable


def reason_of(error: Exception) -> Reason:
    """Return why an event becomes a dead letter whose last run raised this."""
    # Never "invalid": a SchemaError here is about what the listener emits, not what it handles.
    return Reason.TIMEOUT if isinstance(error, ListenerTimeoutError) else Reason.EXCEPTION


def _declared(what: str, value: Duration) -> float:
    try:
        return seconds(value)
    except ValueError as exc:
        raise DeclarationError(f"Retry({what}=): {exc}") from exc
