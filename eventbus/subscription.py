"""`Subscription`: the frozen record of a listener and everything declared about it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypeVar

from eventbus.batch import Batch, BatchHandler
from eventbus.drivers.base import ConsumerSpec, Start
from eventbus.errors import DeclarationError
from eventbus.event import Event, Priority
from eventbus.middleware.base import Context
from eventbus.middleware.breaker import Breaker
from eventbus.middleware.limit import Layer
from eventbus.registry import Registry
from eventbus.retry import UNLIMITED, Retry
from eventbus.stops import Stops
from eventbus.subject import is_pattern, matches

__all__ = (
    "EventT",
    "FailedHook",
    "Handler",
    "Inbox",
    "ListenerFunction",
    "Mode",
    "OnFailure",
    "Subscription",
)

EventT = TypeVar("EventT", bound=Event)
ListenerFunction: TypeAlias = (
    Callable[[EventT], Awaitable[object]] | Callable[[EventT, Context], Awaitable[object]]
)
"""What a user writes: an async function of the event, and of the context where it wants one; what
it returns is for `EventService.until` alone."""
Handler: TypeAlias = Callable[[Event, Context], Awaitable[object]]
"""A listener, called the one way that dispatch knows."""
FailedHook: TypeAlias = Callable[[EventT, Context, Exception], Awaitable[None]]
"""What is told of an event that became a dead letter: the event, its context, and why."""

Inbox: TypeAlias = Literal["sql", "kv"]
"""Where a listener marks what it has handled."""
OnFailure: TypeAlias = Literal["skip", "park_key"]
"""What an ordered listener does about a key whose event it can't handle."""

Mode: TypeAlias = Literal["work", "fanout", "ephemeral"]
"""Who gets an event: one process of the service, each of them, or each that runs now."""

DEFAULT_TIMEOUT = 300.0
FANOUT_KEPT = 300.0
"""Seconds, at least, for which the durable of a process that is gone waits for it."""
EPHEMERAL_KEPT = 30.0
DEFAULT_CONCURRENCY = 16
_NEVER = Stops()
LANE_DEPTH = 16
"""Events that an ordered listener holds for each that it handles at once: what waits behind a
failing one of its key must leave room for other keys."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A listener and everything declared about it."""

    service: str
    listener: str
    events: tuple[str, ...]
    """Event names and patterns, without those another one covers. None yet where it takes all
    that inherit a base class, before it is bound to what is declared."""
    accepts: tuple[type[Event], ...]
    """The classes that the listener takes; `Event` itself means any."""
    handler: Handler
    takes_context: bool = True
    """Whether the handler looks at the context."""
    retry: Retry | None = None
    tries: int | None = None
    backoff: tuple[float, ...] = ()
    retry_for: float | None = None
    """Seconds from the first attempt's beginning to the last one's, at most."""
    stops: Stops = _NEVER
    delay: Callable[[Event], float] | None = None
    """How many seconds after it is stored an event may be handled."""
    concurrency: int = DEFAULT_CONCURRENCY
    timeout: float = DEFAULT_TIMEOUT
    queue: str | None = None
    start: Start = "new"
    middleware: tuple[Layer, ...] = ()
    ack_wait: float = 30.0
    failed: FailedHook[Event] | None = None
    breaker: Breaker | None = None
    ordered: bool = False
    on_failure: OnFailure = "skip"
    connection: str | None = None
    after_commit: bool = False
    mode: Mode = "work"
    instance: str = ""
    """Tells the durables of one listener apart that processes, or replays, have of their own."""
    ends: bool = False
    """Its durable is deleted once it isn't worked any more."""
    replays: str = ""
    """The durable whose events it hands out again; that one isn't touched."""
    again: bool = False
    """A replay that hands out also what is marked as handled."""
    batch: Batch | None = None
    batch_handler: BatchHandler | None = None
    """Set where ``batch`` is; ``handler`` gives it one event then."""
    inbox: Inbox | None = None
    atomic: bool = False
    priority: Priority = "normal"
    """Its weight where it shares places with others; that of its events."""
    beside: str = ""
    """The durable of the listener that it takes events of one priority from."""
    left_to: Mapping[str, str] = field(default_factory=dict[str, str])
    """The durables of such listeners, by the names of the events that they take."""
    undeclared: bool = False
    """Whether it is annotated with `UnknownEvent`, and so means events that aren't declared."""

    @property
    def group(self) -> str:
        """What its processes have in common: limits, dead letters, and in ``work`` the durable."""
        return f"{self.service}__{self.listener}"

    @property
    def durable(self) -> str:
        """The name of its durable consumer."""
        return f"{self.group}__{self.instance}" if self.instance else self.group

    @property
    def is_replay(self) -> bool:
        """Whether it hands out again what another durable has had."""
        return bool(self.replays)

    @property
    def place(self) -> str:
        """What tells its runs from others in marks and the ids of emits; a replay's are the same."""
        return self.replays or self.durable

    @property
    def _kept(self) -> float | None:
        if not self.instance:
            return None
        # While all its slots run it pulls nothing, which the server takes for inactive.
        shortest = EPHEMERAL_KEPT if self.mode == "ephemeral" else FANOUT_KEPT
        return max(shortest, 2 * self.timeout)

    def retries(self, default: Retry) -> Retry:
        """Return its policy; ``default`` fills in what it doesn't say."""
        if self.retry is not None:
            return self.retry
        unlimited = self.retry_for is not None or self.stops.until is not None
        tries = self.tries or (UNLIMITED if unlimited else default.attempts)
        return replace(
            default,
            attempts=tries,
            delays=self.backoff or default.delays,
            budget=default.budget if self.retry_for is None else self.retry_for,
        )

    @property
    def takes_any(self) -> bool:
        """Whether the listener takes events that no class is declared for."""
        return Event in self.accepts

    @property
    def _slots(self) -> int:
        if self.batch is not None:
            return self.concurrency * self.batch.max
        return self.concurrency * (LANE_DEPTH if self.ordered else 1)

    def takes_name(self, name: str) -> bool:
        """Tell whether an event of a name is this listener's to handle."""
        return name not in self.left_to and any(matches(one, name) for one in self.events)

    def takes(self, event: Event) -> bool:
        """Tell whether an event is of a class that the listener takes."""
        return isinstance(event, self.accepts)

    def consumer(self) -> ConsumerSpec:
        """Return what it needs from a driver."""
        return ConsumerSpec(
            durable=self.durable,
            service=self.service,
            listener=self.listener,
            events=self.events,
            slots=self._slots,
            ack_wait=self.ack_wait,
            start=self.start,
            ordered=self.ordered,
            kept=self._kept,
            lasting=self.mode != "ephemeral",
            retries=not self.is_replay,
            beside=self.beside,
        )

    def register(self, registry: Registry) -> None:
        """Make the classes that the listener takes known.

        Raises:
            IncompatibleSchemaError: Another class has the name and version of one of them.
        """
        for event in self.accepts:
            if event.event_spec is not None:
                registry.register(event)

    def bound(self, registry: Registry) -> "Subscription":
        """Return it with the names of all declared events that it takes, where it has none.

        Raises:
            DeclarationError: No declared event inherits the class that it takes.
        """
        if self.events:
            return self
        events = registry.names_of(self.accepts)
        if not events:
            (base,) = self.accepts
            raise DeclarationError(
                f"listener '{self.listener}' takes every {base.__name__}, but no declared event "
                "inherits it; declare one in schemas/, or set EVENTBUS_SCHEMAS"
            )
        return replace(self, events=events)

    def needs(self, registry: Registry) -> bool:
        """Tell whether more must be known before `check`; a pattern needs all that is declared."""
        if not self.events:
            return True
        missing = [name for name in self.events if name not in registry]
        if self.takes_any:
            return not self.undeclared and any(not is_pattern(name) for name in missing)
        return bool(missing)

    def check(self, registry: Registry) -> None:
        """Check its names and patterns against what is declared.

        Raises:
            UnknownEventError: It names an event that no class is declared for.
            DeclarationError: A pattern brings an event that the listener's type doesn't take, or
                doesn't bring one that it does.
        """
        if self.takes_any:
            self._check_declared(registry)
            return
        for event in self.accepts:
            self._check_brought(event)
        for pattern in self.events:
            names = registry.names(pattern) if is_pattern(pattern) else (pattern,)
            for name in names:
                self._check_accepts(registry, name, pattern)

    def _check_declared(self, registry: Registry) -> None:
        """Refuse the name of an event that isn't declared: a typo, unless it says otherwise."""
        for name in self.events:
            if not self.undeclared and not is_pattern(name):
                registry.resolve(name)

    def _check_brought(self, event: type[Event]) -> None:
        spec = event.event_spec
        if spec is not None and not any(matches(one, spec.name) for one in self.events):
            raise DeclarationError(
                f"listener '{self.listener}' takes {event.__name__}, but {spec.name!r} isn't among "
                f"'{', '.join(self.events)}'; subscribe it to {event.__name__}"
            )

    def _check_accepts(self, registry: Registry, name: str, pattern: str) -> None:
        takes = " | ".join(one.__name__ for one in self.accepts)
        if not issubclass(registry.reading(name, None, self.accepts).event, self.accepts):
            raise DeclarationError(
                f"listener '{self.listener}' takes {takes}, but '{pattern}' also brings "
                f"{registry.resolve(name).__name__}; annotate it with Event or narrow the pattern"
            )
        for version in registry.unreadable(name, self.accepts):
            raise DeclarationError(
                f"listener '{self.listener}' takes {takes}, and nothing leads there from version "
                f"{version} of '{name}'; add @upcast(\"{name}\", from_version={version}), or take "
                f"{registry.resolve(name, version).__name__} too"
            )
