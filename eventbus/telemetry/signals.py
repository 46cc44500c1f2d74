"""What happened, as frozen records, and the observers that are told.

Observers watch: they can't change what happens, and one that raises is logged and left behind.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, cast

from eventbus.delivery import Outcome, Reason
from eventbus.drivers.base import DriverSignal
from eventbus.record import quick
from eventbus.telemetry.conditions import Condition
from eventbus.telemetry.outbox import OutboxSignal

__all__ = (
    "Audience",
    "Audiences",
    "Cancelled",
    "Counter",
    "Counting",
    "EmitFailed",
    "Emitted",
    "FailedHookRaised",
    "Happened",
    "ListenerStarted",
    "Observer",
    "Observers",
    "Received",
    "Returned",
    "Settled",
    "Stopped",
    "Stuck",
    "TickFailed",
    "count_handled",
    "count_received",
    "is_watched",
    "tell",
)

_log = logging.getLogger(__name__)


@quick
@dataclass(frozen=True, slots=True)
class Emitted:
    """An event is stored, or was before under the same id."""

    name: str
    id: str
    driver: str
    correlation_id: str
    duration: float
    """Seconds from ``emit`` to the receipt."""
    size: int
    """Bytes of the payload."""
    duplicate: bool
    key: str | None = None
    causation_id: str | None = None
    """The event that was handled where it was emitted; None outside of listeners."""
    trace: str = ""
    """The ``traceparent`` that it was sent with; empty without a trace."""
    tags: tuple[str, ...] = ()
    due: datetime | None = None
    """Until when it waits; None for an event that isn't delayed."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A delayed event will never fire; it is gone, by the decision of who cancelled it."""

    id: str
    source: str
    """The service that emitted it."""


@dataclass(frozen=True, slots=True)
class EmitFailed:
    """An emit raised; by the error's code the event isn't stored, or nobody knows."""

    name: str
    id: str
    driver: str
    correlation_id: str
    duration: float
    error: Exception
    trace: str = ""
    """The ``traceparent`` of where it was emitted; empty without a trace."""


@quick
@dataclass(frozen=True, slots=True)
class Received:
    """A delivery came in and holds a slot."""

    name: str
    """The event's name; "unknown" where the subject isn't one."""
    service: str
    listener: str
    redelivered: bool


@quick
@dataclass(frozen=True, slots=True)
class ListenerStarted:
    """A listener's run begins."""

    name: str
    id: str
    service: str
    listener: str
    attempt: int
    correlation_id: str


@quick
@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery is settled; this is the one record of how it ended."""

    name: str
    id: str
    """The event's id; empty where the message had none."""
    service: str
    listener: str
    outcome: Outcome
    attempt: int
    attempts: int
    """How many attempts it has in total."""
    duration: float
    """Seconds the listener ran, middleware included; 0 where it didn't run."""
    end_to_end: float | None
    """Seconds from emit, or the time it was delayed to, to settled; None where unknown."""
    correlation_id: str
    causation_id: str | None = None
    reason: Reason | None = None
    """Why it is a dead letter."""
    detail: str = ""
    delay: float | None = None
    """Seconds until the next attempt."""
    error: Exception | None = None
    stream: str = ""
    sequence: int = 0
    subject: str = ""
    emitted_at: datetime | None = None
    trace: str = ""
    """The event's ``traceparent``; empty without a trace."""
    redrive: int = 0
    """How often the event was redriven; 0 where it came as it was emitted."""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """A delivery went back to the server unhandled, at a stop; it isn't an attempt."""

    name: str
    service: str
    listener: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """A delivery could not be settled; the server will hand it out again."""

    name: str
    service: str
    listener: str
    error: Exception


@dataclass(frozen=True, slots=True)
class FailedHookRaised:
    """A listener's ``failed`` raised; the dead letter is stored, and nothing else changes."""

    name: str
    id: str
    service: str
    listener: str
    error: Exception


@dataclass(frozen=True, slots=True)
class TickFailed:
    """The next tick of a recurring event couldn't be stored; it is tried again."""

    service: str
    recurring: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Stopped:
    """A service has stopped; ``cancelled`` listeners didn't finish within the grace period."""

    service: str
    cancelled: int


Happened: TypeAlias = (
    Emitted
    | EmitFailed
    | Cancelled
    | Received
    | ListenerStarted
    | Settled
    | Returned
    | Stuck
    | FailedHookRaised
    | TickFailed
    | Stopped
    | Condition
    | OutboxSignal
    | DriverSignal
)
Observer: TypeAlias = Callable[[Happened], None]
"""Told what happened. One with an attribute ``takes``, a collection of these records' classes, is
told of no others, and a record that nobody takes isn't made. Where that is a mapping, it says who is
told of which instead."""


class Counter:
    """Counts the usual: deliveries that come for the first time and are handled."""

    __slots__ = ()

    def received(self) -> None:
        """Count one that came in, as by a `Received`."""
        raise NotImplementedError

    def handled(self, duration: float, end_to_end: float, trace: str) -> None:
        """Count one that was handled at its first delivery, as by a `Settled`."""
        raise NotImplementedError


class Counting:
    """An observer that is told of the usual by a `Counter`, and not by `Received` and `Settled`.

    Two records for each event would take longer than counting them.
    """

    def counter(self, name: str, listener: str) -> Counter:
        """Return what counts the usual deliveries of an event to a listener."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Audience:
    """Who is told of the usual deliveries of one event to one listener, and how."""

    counters: tuple[Counter, ...]
    received: tuple[Observer, ...]
    started: tuple[Observer, ...]
    settled: tuple[Observer, ...]


class Observers:
    """Tells every observer; callable like one."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers = list(observers)
        self._takers: dict[type, tuple[Observer, ...]] = {}
        """Who is told of what, as far as it was asked for."""
        self.changes = 0
        """How often an observer came or went."""

    def add(self, observer: Observer) -> None:
        """Tell this one too, from now on."""
        self._observers.append(observer)
        self._takers.clear()
        self.changes += 1

    def remove(self, observer: Observer) -> None:
        """Stop telling this one."""
        self._observers.remove(observer)
        self._takers.clear()
        self.changes += 1

    def takers(self, kind: type) -> tuple[Observer, ...]:
        """Return those that are told of a kind of record, in the order they were added."""
        found = self._takers.get(kind)
        if found is None:
            told = (_taker(one, kind) for one in self._observers)
            found = self._takers[kind] = tuple(one for one in told if one is not None)
        return found

    def audience(self, name: str, listener: str) -> Audience:
        """Return who is told of the usual deliveries of an event to a listener, as it is now."""
        counters: list[Counter] = []
        others = Observers()
        for one in self._observers:
            counter = _counter_of(one, name, listener)
            if counter is None:
                others.add(one)
            else:
                counters.append(counter)
        return Audience(
            tuple(counters),
            others.takers(Received),
            self.takers(ListenerStarted),
            others.takers(Settled),
        )

    def __call__(self, happened: Happened) -> None:
        """Tell all that take it, in the order they were added."""
        told = self._takers.get(type(happened))
        tell(self.takers(type(happened)) if told is None else told, happened)


def _counter_of(observer: object, name: str, listener: str) -> Counter | None:
    """Return what counts in an observer's place; None where it has to be told."""
    if not isinstance(observer, Counting):
        return None
    try:
        return observer.counter(name, listener)
    except Exception:  # noqa: BLE001 - as in `tell`
        _log.exception("observer %r failed on a counter of %s", observer, name)
        return None


def tell(observers: tuple[Observer, ...], happened: Happened) -> None:
    """Tell each of them; one that raises is logged."""
    for observer in observers:
        try:
            observer(happened)
        except Exception:  # noqa: BLE001 - whatever it is, it must not change what happens
            _log.exception("observer %r failed on %s", observer, type(happened).__name__)


def count_received(audience: Audience) -> None:
    """Have a delivery counted that came in."""
    for counter in audience.counters:
        try:
            counter.received()
        except Exception:  # noqa: BLE001 - as in `tell`
            _log.exception("counter %r failed", counter)


def count_handled(audience: Audience, duration: float, end_to_end: float, trace: str) -> None:
    """Have a delivery counted that is handled."""
    for counter in audience.counters:
        try:
            counter.handled(duration, end_to_end, trace)
        except Exception:  # noqa: BLE001 - as in `tell`
            _log.exception("counter %r failed", counter)


class Audiences:
    """The audiences of one listener, each looked up again where observers came or went."""

    def __init__(self, observe: Observer, listener: str) -> None:
        self._observers = observe if isinstance(observe, Observers) else Observers((observe,))
        self._listener = listener
        self._known: dict[str, Audience] = {}
        self._changes = self._observers.changes

    def of(self, name: str) -> Audience:
        """Return who is told of an event's deliveries."""
        observers = self._observers
        if observers.changes != self._changes:
            self._known.clear()
            self._changes = observers.changes
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = observers.audience(name, self._listener)
        return found


def _taker(observer: Observer, kind: type) -> Observer | None:
    """Return what is told of a kind of record in an observer's place; None where nothing is."""
    takes: Collection[type] | None = getattr(observer, "takes", None)
    if takes is None:
        return observer
    if isinstance(takes, Mapping):
        return cast("Mapping[type, Observer]", takes).get(kind)
    return observer if kind in takes else None


def is_watched(observe: Observer, kind: type) -> bool:
    """Tell whether anybody takes a kind of record; one that nobody gets needn't be made."""
    return not isinstance(observe, Observers) or bool(observe.takers(kind))
