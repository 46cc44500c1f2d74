"""Checks of the options that say what stands around a listener and when its events wait."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from inspect import iscoroutinefunction
from typing import cast, get_args

from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError, did_you_mean
from eventbus.event import Event
from eventbus.middleware.breaker import Breaker
from eventbus.middleware.limit import Layer, Limit
from eventbus.middleware.named import middleware_named
from eventbus.middleware.when import When
from eventbus.stops import CanRetry, Stops, Until
from eventbus.subscribing import ListenerOptions
from eventbus.subscription import EventT, Mode

__all__ = (
    "Patience",
    "around",
    "at_least",
    "delay_of",
    "duration_of",
    "mode_of",
    "patience_of",
)

_POLICY = ("tries", "backoff")


def around(
    listener: str, options: ListenerOptions[EventT]
) -> tuple[tuple[Layer, ...], Breaker | None]:
    """Return what stands around a listener, and its breaker.

    Raises:
        DeclarationError: Something in ``middleware``, ``when`` or ``breaker`` is none, or there
            are two breakers.
    """
    given = options.get("middleware", ())
    if isinstance(given, str):  # a sequence too
        raise DeclarationError(
            f"listener '{listener}': middleware={given!r} must be a list; write [{given!r}]"
        )
    named = [middleware_named(one) if isinstance(one, str) else one for one in given]
    breakers = [one for one in named if isinstance(one, Breaker)]
    breaker = options.get("breaker")
    if breaker is not None:
        breakers.append(_breaker(listener, breaker))
    if len(breakers) > 1:
        raise DeclarationError(f"listener '{listener}' has {len(breakers)} breakers; keep one")
    layers = tuple(one for one in named if not isinstance(one, Breaker))
    for one in layers:
        if not isinstance(one, Limit) and (isinstance(one, type) or not callable(one)):
            raise DeclarationError(f"listener '{listener}': {one!r} isn't a middleware")
    when = _function(listener, "when", options.get("when"))
    if when is not None:
        layers = (When(cast("Callable[[Event], bool]", when)), *layers)
    return layers, breakers[0] if breakers else None


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a listener goes on trying, as its options say."""

    tries: int | None
    backoff: tuple[float, ...]
    retry_for: float | None
    stops: Stops


def patience_of(listener: str, options: ListenerOptions[EventT]) -> Patience:
    """Return how long a listener goes on trying.

    Raises:
        DeclarationError: A value makes no sense, or `Retry` says it too.
    """
    for option in _POLICY:
        if option in options and options.get("retry") is not None:
            raise DeclarationError(
                f"listener '{listener}': {option}= and retry= both say when it is tried again; "
                f"put it into the Retry, or drop retry="
            )
    tries, most = options.get("tries"), options.get("max_exceptions")
    retry_for, until = _until(listener, options)
    if retry_for is not None and options.get("retry") is not None:
        raise DeclarationError(
            f"listener '{listener}': write Retry(budget=...) instead of retry_until= beside retry="
        )
    return Patience(
        tries=None if tries is None else at_least(listener, "tries", tries),
        backoff=_backoff(listener, options),
        retry_for=retry_for,
        stops=Stops(
            max_exceptions=None if most is None else at_least(listener, "max_exceptions", most),
            can_retry=_can_retry(listener, options),
            until=until,
        ),
    )


def mode_of(listener: str, options: ListenerOptions[EventT]) -> Mode:
    """Return which processes get an event.

    Raises:
        DeclarationError: There is no such mode, or another option contradicts it.
    """
    mode = options.get("mode", "work")
    if mode not in get_args(Mode):
        hint = did_you_mean(str(mode), get_args(Mode))
        raise DeclarationError(
            f"listener '{listener}': mode={mode!r} must be 'work', 'fanout' or 'ephemeral'{hint}"
        )
    if mode != "work" and options.get("ordered"):
        raise DeclarationError(
            f"listener '{listener}': ordered=True is for mode='work', where one process has the "
            "turn; with concurrency=1 each process handles one event at a time"
        )
    if mode == "ephemeral" and options.get("start", "new") != "new":
        raise DeclarationError(
            f"listener '{listener}': mode='ephemeral' begins with new events; use mode='fanout' "
            "for start="
        )
    return mode


def delay_of(listener: str, options: ListenerOptions[EventT]) -> Callable[[Event], float] | None:
    """Return how long each event waits for a listener.

    Raises:
        DeclarationError: It is neither a duration nor a function.
    """
    delay = options.get("delay")
    if delay is None:
        return None
    if callable(delay):
        wanted = cast("Callable[[Event], Duration]", _function(listener, "delay", delay))
        return lambda event: seconds(wanted(event))
    fixed = duration_of(listener, "delay", delay)
    return (lambda _: fixed) if fixed else None


def at_least(listener: str, option: str, value: int) -> int:
    """Return a number of at least 1.

    Raises:
        DeclarationError: It isn't one.
    """
    if type(value) is not int or value < 1:
        raise DeclarationError(f"listener '{listener}': {option}={value!r} must be at least 1")
    return value


def duration_of(listener: str, option: str, value: Duration) -> float:
    """Return a duration in seconds.

    Raises:
        DeclarationError: It isn't one.
    """
    try:
        return seconds(value)
    except ValueError as exc:
        raise DeclarationError(f"listener '{listener}': {option}: {exc}") from exc


def _backoff(listener: str, options: ListenerOptions[EventT]) -> tuple[float, ...]:
    given = options.get("backoff", ())
    delays = given if isinstance(given, (list, tuple)) else (cast("Duration", given),)
    return tuple(duration_of(listener, "backoff", one) for one in delays)


def _until(listener: str, options: ListenerOptions[EventT]) -> tuple[float | None, Until | None]:
    given = options.get("retry_until")
    if given is None:
        return None, None
    if callable(given):
        return None, cast("Until", _function(listener, "retry_until", given))
    if not isinstance(given, datetime):
        return duration_of(listener, "retry_until", given), None
    if given.tzinfo is None:
        raise DeclarationError(f"listener '{listener}': retry_until={given!r} needs a time zone")
    return None, lambda _: given


def _can_retry(listener: str, options: ListenerOptions[EventT]) -> CanRetry | None:
    given = options.get("can_retry", True)
    if isinstance(given, bool):
        return None if given else lambda _event, _error: False
    return cast("CanRetry", _function(listener, "can_retry", given))


def _function(listener: str, option: str, given: object) -> object:
    """Return what has to be a plain function; its answer is needed at once."""
    if given is None:
        return None
    if not callable(given) or iscoroutinefunction(given):
        raise DeclarationError(
            f"listener '{listener}': {option}={given!r} must be a function that isn't async"
        )
    return given


def _breaker(listener: str, breaker: Breaker) -> Breaker:
    if isinstance(breaker, Breaker):
        return breaker
    raise DeclarationError(
        f"listener '{listener}': breaker={breaker!r} isn't a Breaker; write breaker=Breaker()"
    )
