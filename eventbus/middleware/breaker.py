"""`Breaker`: when a listener's dependency is taken to be down, and when it is tried again; pure.

It is no layer around a listener: dispatch tells it how runs end, and the pump stops pulling.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError, RetryLater, Signal

__all__ = ("Breaker", "BreakerState", "Circuit")

PARTS = 10
"""In how many parts the window moves on."""


class BreakerState(StrEnum):
    """What a breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing."""
    PROBING = "probing"
    """One event at a time, to see."""


@dataclass(frozen=True)
class Breaker:
    """When a listener stops pulling events because what it needs is down.

    It opens when ``rate`` of the runs within ``window`` seconds have failed, once there were
    ``min_calls``, or at the first exception of a type in ``on``. While it is open nothing is pulled
    and nothing burns: an event that fails then goes back without counting an attempt. After
    ``reset_after`` seconds one event is let through at a time; the first that doesn't fail closes
    it. Each process has its own.

    `Reject` and `Discard` are no failures, `RetryLater` is neither a failure nor a success.

    Raises:
        DeclarationError: A value makes no sense.
    """

    rate: float | None = 0.5
    """The failed part of the runs at which it opens; None for exceptions in ``on`` alone."""
    window: Duration = 60.0
    min_calls: int = 20
    """Fewer runs say nothing about a rate."""
    on: tuple[type[Exception], ...] = ()
    """Exceptions that leave no doubt, such as a refused connection."""
    reset_after: Duration = 30.0
    _window: float = field(init=False, repr=False, compare=False)
    _reset_after: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the values and keep the durations in seconds."""
        if self.rate is not None and not 0 < self.rate <= 1:
            raise DeclarationError(f"Breaker(rate={self.rate!r}) must be over 0, at most 1")
        if self.rate is None and not self.on:
            raise DeclarationError("Breaker(rate=None) needs on=, or it never opens")
        if type(self.min_calls) is not int or self.min_calls < 1:
            raise DeclarationError(f"Breaker(min_calls={self.min_calls!r}) must be at least 1")
        if not all(_is_exception(one) for one in self.on):
            raise DeclarationError(f"Breaker(on={self.on!r}) must be a tuple of exceptions")
        object.__setattr__(self, "_window", _declared("window", self.window))
        object.__setattr__(self, "_reset_after", _declared("reset_after", self.reset_after))

    @property
    def pause(self) -> float:
        """Seconds from opening to the probe."""
        return self._reset_after

    @property
    def span(self) -> float:
        """Seconds over which the rate is taken."""
        return self._window


def _is_exception(one: object) -> bool:
    return isinstance(one, type) and issubclass(one, Exception)


def _declared(what: str, value: Duration) -> float:
    try:
        given = seconds(value)
    except ValueError as exc:
        raise DeclarationError(f"Breaker({what}=): {exc}") from exc
    if not given:
        raise DeclarationError(f"Breaker({what}={value!r}) must be over 0")
    return given


class Circuit:
    """The breaker of one listener in one process, as it stands."""

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker
        self.state = BreakerState.CLOSED
        self._runs = _Runs(breaker.span)
        self._era = 0
        """Changes with the state, so that a run counts only for the state it began in."""
        self._probing = False
        self._watchers: list[Callable[[BreakerState, str], None]] = []

    def watch(self, watcher: Callable[[BreakerState, str], None]) -> None:
        """Tell ``watcher`` of each new state, and what opened it."""
        self._watchers.append(watcher)

    def begin(self) -> int | None:
        """Return the ticket of a run that may begin; None where its event has to go back."""
        if self.state is BreakerState.OPEN or self._probing:
            return None
        self._probing = self.state is BreakerState.PROBING
        return self._era

    def end(self, ticket: int, error: Exception | None, now: float) -> bool:
        """Take note of how a run ended; return whether it counts as an attempt.

        Args:
            ticket: What `begin` returned for it.
            error: What the listener raised; None for nothing.
            now: Seconds on a clock that never goes back.
        """
        failed = error is not None and not isinstance(error, Signal)
        if ticket != self._era:
            # It began before the state changed. What fails while it is open burns nothing.
            return not failed or self.state is BreakerState.CLOSED
        if self.state is BreakerState.PROBING:
            self._probed(error, failed=failed)
            return not failed
        if not isinstance(error, RetryLater):
            self._runs.add(now, failed=failed)
        if failed and self._opens(error, now):
            # This one counts: were it the event's own fault, it would come back for ever.
            self._change(BreakerState.OPEN, _named(error))
        return True

    def let_go(self, ticket: int) -> None:
        """Take note that a run ended without a result: it was cancelled at a stop."""
        if ticket == self._era:
            self._probing = False

    def probe(self) -> None:
        """Let one event through at a time, `Breaker.pause` seconds after it opened."""
        if self.state is BreakerState.OPEN:
            self._change(BreakerState.PROBING, "")

    def _probed(self, error: Exception | None, *, failed: bool) -> None:
        self._probing = False
        if failed:
            self._change(BreakerState.OPEN, _named(error))
        elif not isinstance(error, RetryLater):
            self._runs.clear()
            self._change(BreakerState.CLOSED, "")

    def _opens(self, error: Exception | None, now: float) -> bool:
        one = self.breaker
        if isinstance(error, one.on):
            return True
        runs, failures = self._runs.counted(now)
        return one.rate is not None and runs >= one.min_calls and failures >= one.rate * runs

    def _change(self, state: BreakerState, problem: str) -> None:
        self.state = state
        self._era += 1
        self._probing = False
        for watcher in self._watchers:
            watcher(state, problem)


def _named(error: Exception | None) -> str:
    return type(error).__name__


class _Runs:
    """How many runs there were within a window, and how many failed; it moves on in parts."""

    def __init__(self, span: float) -> None:
        self._part = span / PARTS
        self._parts: deque[tuple[int, int, int]] = deque()

    def add(self, now: float, *, failed: bool) -> None:
        """Count a run."""
        number = int(now / self._part)
        runs = failures = 0
        if self._parts and self._parts[-1][0] == number:
            _, runs, failures = self._parts.pop()
        self._parts.append((number, runs + 1, failures + failed))

    def counted(self, now: float) -> tuple[int, int]:
        """Return how many runs there were and how many of them failed."""
        oldest = int(now / self._part) - PARTS
        while self._parts and self._parts[0][0] <= oldest:
            self._parts.popleft()
        return sum(one[1] for one in self._parts), sum(one[2] for one in self._parts)

    def clear(self) -> None:
        """Forget them."""
        self._parts.clear()
