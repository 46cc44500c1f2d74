"""`Subscription`: the frozen record of a listener and its options, checked when it is declared."""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import SimpleNamespace, UnionType
from typing import (
    Any,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from eventbus.drivers.base import ConsumerSpec, Start
from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError, SubjectError, did_you_mean
from eventbus.event import Event, UnknownEvent, spec_of
from eventbus.middleware.base import Context, Middleware
from eventbus.middleware.breaker import Breaker
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.subject import check_name, check_pattern, is_pattern, matches, without_covered

__all__ = (
    "Decorator",
    "EventT",
    "FailedHook",
    "Handler",
    "Listener",
    "ListenerOptions",
    "OnFailure",
    "Subscribed",
    "Subscription",
    "subscription",
)

EventT = TypeVar("EventT", bound=Event)
Listener: TypeAlias = (
    Callable[[EventT], Awaitable[None]] | Callable[[EventT, Context], Awaitable[None]]
)
"""What a user writes: an async function of the event, and of the context where it wants one."""
Handler: TypeAlias = Callable[[Event, Context], Awaitable[None]]
"""A listener, called the one way that dispatch knows."""
FailedHook: TypeAlias = Callable[[EventT, Context, Exception], Awaitable[None]]
"""What is told of an event that became a dead letter: the event, its context, and why."""

OnFailure: TypeAlias = Literal["skip", "park_key"]
"""What an ordered listener does about a key whose event it can't handle."""

DEFAULT_TIMEOUT = 300.0
DEFAULT_CONCURRENCY = 16
MIN_ACK_WAIT = 1.0
LANE_DEPTH = 16
"""Events that an ordered listener holds for each that it handles at once: what waits behind a
failing one of its key must leave room for other keys."""


class ListenerOptions(TypedDict, Generic[EventT], total=False):
    """The options of `EventService.subscribe`."""

    name: str
    """The listener's name, unique in its service; its function's name where not given."""
    retry: Retry
    """When and how often a failed event is tried again; from the settings where not given."""
    concurrency: int
    """How many events it handles at once in this process; 16 where not given."""
    timeout: Duration
    """Longest run; then it is cancelled and the attempt has failed. 5 minutes where not given,
    so that a hung listener can't hold an event for ever."""
    queue: str
    """The named group it belongs to, for ``eventbus run --queue``."""
    start: Start
    """Where a new durable begins: ``"new"`` (the default), ``"all"``, a time, or a sequence."""
    middleware: tuple[Middleware, ...]
    """Wrapped around this listener, inside the service's own; the first is the outermost."""
    ack_wait: Duration
    """How long the server waits for a sign of life before it hands an event to somebody else;
    heartbeats keep it while the listener runs. 30 s where not given."""
    breaker: Breaker
    """When it stops pulling events because what it needs is down; never where not given."""
    ordered: bool
    """Handle each key's events one after the other, by their sequence in the stream, also through
    retries and when another process takes over; different keys side by side. One process works at
    a time, the others stand by. A failed event waits for its retry in hand, and those behind it
    wait with it; nothing is parked. Events without a key are one sequence of their own."""
    on_failure: OnFailure
    """With ``ordered``, after the last attempt: ``"skip"`` (where not given) goes on with the
    key's next event; with ``"park_key"`` it and all later ones of its key become dead letters
    until they are redriven by key. An expired event parks nothing."""
    failed: FailedHook[EventT]
    """Called once an event has become a dead letter, after its last attempt or without one, and
    not where it couldn't be read. The letter is stored by then. At least once: a crash before the
    end repeats the last attempt, then this. It has the listener's time limit; what it raises is
    told to the observers as `FailedHookRaised`, and changes nothing."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A listener and everything declared about it."""

    service: str
    listener: str
    events: tuple[str, ...]
    """Event names and patterns, without those another one covers."""
    accepts: tuple[type[Event], ...]
    """The classes that the listener takes; `Event` itself means any."""
    handler: Handler
    retry: Retry | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    timeout: float = DEFAULT_TIMEOUT
    queue: str | None = None
    start: Start = "new"
    middleware: tuple[Middleware, ...] = ()
    ack_wait: float = 30.0
    failed: FailedHook[Event] | None = None
    breaker: Breaker | None = None
    ordered: bool = False
    on_failure: OnFailure = "skip"
    undeclared: bool = False
    """Whether it is annotated with `UnknownEvent`, and so means events that aren't declared."""

    @property
    def durable(self) -> str:
        """The name of its durable consumer."""
        return f"{self.service}__{self.listener}"

    @property
    def takes_any(self) -> bool:
        """Whether the listener takes events that no class is declared for."""
        return Event in self.accepts

    def consumer(self) -> ConsumerSpec:
        """Return what it needs from a driver."""
        return ConsumerSpec(
            durable=self.durable,
            service=self.service,
            listener=self.listener,
            events=self.events,
            slots=self.concurrency * (LANE_DEPTH if self.ordered else 1),
            ack_wait=self.ack_wait,
            start=self.start,
            ordered=self.ordered,
        )

    def register(self, registry: Registry) -> None:
        """Make the classes that the listener takes known.

        Raises:
            IncompatibleSchemaError: Another class has the name and version of one of them.
        """
        for event in self.accepts:
            if event.event_spec is not None:
                registry.register(event)

    def needs(self, registry: Registry) -> bool:
        """Tell whether more must be known before `check`; a pattern needs all that is declared."""
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
                self._check_accepts(registry.resolve(name), pattern)

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

    def _check_accepts(self, event: type[Event], pattern: str) -> None:
        if not issubclass(event, self.accepts):
            takes = " | ".join(one.__name__ for one in self.accepts)
            raise DeclarationError(
                f"listener '{self.listener}' takes {takes}, but '{pattern}' also brings "
                f"{event.__name__}; annotate it with Event or narrow the pattern"
            )


def subscription(
    service: str,
    target: type[Event] | str,
    listener: Callable[..., Awaitable[None]],
    options: ListenerOptions[EventT],
) -> Subscription:
    """Return the record of a listener for an event class, a name or a pattern.

    Raises:
        DeclarationError: The listener isn't async, takes other parameters or another event, or an
            option is unknown or makes no sense.
        SubjectError: The name or pattern isn't valid.
    """
    _check_options(options)
    name = _name(listener, options)
    annotations = _annotations(listener)
    annotated = _event_classes(annotations[0]) if annotations else ()
    if isinstance(target, str):
        events: tuple[str, ...] = without_covered([check_pattern(target)])
        accepts = annotated or _any_event(name, annotations[:1])
    else:
        events, accepts = (spec_of(target).name,), (target,)
        if annotated and not issubclass(target, annotated):
            takes = " | ".join(one.__name__ for one in annotated)
            raise DeclarationError(
                f"listener '{name}' takes {takes}, but is subscribed to {target.__name__}"
            )
    return Subscription(
        service=service,
        listener=name,
        events=events,
        accepts=accepts,
        handler=_handler(listener, name, annotations),
        retry=_retry(name, options.get("retry")),
        concurrency=_at_least(
            name, "concurrency", options.get("concurrency", DEFAULT_CONCURRENCY)
        ),
        timeout=_timeout(name, options.get("timeout", DEFAULT_TIMEOUT)),
        queue=options.get("queue"),
        start=_start(name, options.get("start", "new")),
        middleware=tuple(options.get("middleware", ())),
        ack_wait=max(MIN_ACK_WAIT, _duration(name, "ack_wait", options.get("ack_wait", 30.0))),
        failed=_failed(name, options.get("failed")),
        breaker=_breaker(name, options.get("breaker")),
        ordered=_ordered(name, options),
        on_failure=_on_failure(name, options),
        undeclared=bool(annotations) and annotations[0] is UnknownEvent,
    )


def _check_options(options: Mapping[str, object]) -> None:
    known = tuple(ListenerOptions.__annotations__)
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise DeclarationError(f"subscribe() has no option {option!r}{hint}")


def _name(listener: Callable[..., Awaitable[None]], options: ListenerOptions[EventT]) -> str:
    function = _function(listener)
    own = type(listener) if function is type(listener).__call__ else function
    name = options.get("name", getattr(own, "__name__", ""))
    try:
        return check_name(name, "listener")
    except SubjectError as exc:
        raise DeclarationError(f"{exc}; pass name= to subscribe()") from exc


def _annotations(listener: Callable[..., Awaitable[None]]) -> tuple[object, ...]:
    """Return the annotations of the positional parameters, in order; None for a missing one."""
    hints = _hints(inspect.unwrap(_function(listener)))
    parameters = inspect.signature(listener).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(
        hints.get(one.name)
        for one in parameters
        if one.kind in positional
        and (one.default is one.empty or _is_context(hints.get(one.name)))
    )


def _function(listener: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return the function that is run: the one inside a partial, or an object's `__call__`."""
    while isinstance(listener, partial):
        listener = listener.func
    return listener if inspect.isroutine(listener) else type(listener).__call__


def _hints(function: Callable[..., Awaitable[None]]) -> dict[str, object]:
    """Return the annotations; one that only type checkers can resolve stays a string."""
    found: dict[str, object] = dict(getattr(function, "__annotations__", {}))
    for name, annotation in found.items():
        alone = SimpleNamespace(__annotations__={name: annotation})
        with suppress(NameError, AttributeError):
            found[name] = get_type_hints(alone, getattr(function, "__globals__", {}))[name]
    return found


def _is_context(annotation: object) -> bool:
    return annotation is Context or (
        isinstance(annotation, str) and annotation.rpartition(".")[2] == "Context"
    )


def _event_classes(annotation: object) -> tuple[type[Event], ...]:
    if get_origin(annotation) in (Union, UnionType):
        return tuple(one for part in get_args(annotation) for one in _event_classes(part))
    if isinstance(annotation, type) and issubclass(annotation, Event):
        # A listener of UnknownEvent alone would refuse every event that is known.
        return (Event,) if annotation is UnknownEvent else (annotation,)
    return ()


def _any_event(listener: str, annotation: tuple[object, ...]) -> tuple[type[Event], ...]:
    """Return what a listener takes whose annotation names no event class of its own.

    Raises:
        DeclarationError: It names something else, or what can't be found at run time.
    """
    (named,) = annotation or (None,)
    if isinstance(named, str) and named.rpartition(".")[2] not in ("Event", "UnknownEvent"):
        raise DeclarationError(
            f"listener '{listener}': the annotation '{named}' can't be resolved; import it "
            "outside of TYPE_CHECKING, at the top of a module"
        )
    if named is not Any and isinstance(named, type) and not issubclass(Event, named):
        raise DeclarationError(
            f"listener '{listener}' takes {named.__name__}, but it gets events; annotate it "
            "with Event or event classes"
        )
    return (Event,)


def _handler(
    listener: Callable[..., Awaitable[None]], name: str, annotations: tuple[object, ...]
) -> Handler:
    if not _is_async(listener):
        raise DeclarationError(
            f"listener '{name}' isn't async; write 'async def {name}(event)', or give it a "
            "thread with in_thread()"
        )
    parameters = inspect.signature(listener).parameters
    for one in parameters.values():
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty:
            raise DeclarationError(
                f"listener '{name}' needs {one.name}=, which nobody gives it; bind it with "
                "functools.partial, or give it a default"
            )
    if len(annotations) == 2 and _is_context(annotations[1]):
        return cast("Handler", listener)
    if len(annotations) != 1 or _is_context(annotations[0]):
        raise DeclarationError(
            f"listener '{name}' must take (event) or (event, context: Context), "
            f"it takes ({', '.join(parameters)})"
        )
    plain = cast("Callable[[Event], Awaitable[None]]", listener)

    async def handler(event: Event, _context: Context) -> None:
        await plain(event)

    return handler


def _is_async(function: object) -> bool:
    called = getattr(function, "__call__", None)  # noqa: B004 - the method, not whether it exists
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _failed(listener: str, hook: FailedHook[EventT] | None) -> FailedHook[Event] | None:
    if hook is not None and not _is_async(hook):
        raise DeclarationError(
            f"listener '{listener}': failed={hook!r} isn't an async function; "
            "write 'async def gave_up(event, context, error)'"
        )
    return cast("FailedHook[Event] | None", hook)


def _at_least(listener: str, option: str, value: int) -> int:
    if type(value) is not int or value < 1:
        raise DeclarationError(f"listener '{listener}': {option}={value!r} must be at least 1")
    return value


def _duration(listener: str, option: str, value: Duration) -> float:
    try:
        return seconds(value)
    except ValueError as exc:
        raise DeclarationError(f"listener '{listener}': {option}: {exc}") from exc


def _timeout(listener: str, value: Duration) -> float:
    limit = _duration(listener, "timeout", value)
    if not limit:
        raise DeclarationError(f"listener '{listener}': timeout={value!r} leaves it no time")
    return limit


def _retry(listener: str, retry: Retry | None) -> Retry | None:
    if retry is None or isinstance(retry, Retry):
        return retry
    raise DeclarationError(
        f"listener '{listener}': retry={retry!r} isn't a Retry; write retry=Retry(attempts=...)"
    )


def _breaker(listener: str, breaker: Breaker | None) -> Breaker | None:
    if breaker is None or isinstance(breaker, Breaker):
        return breaker
    raise DeclarationError(
        f"listener '{listener}': breaker={breaker!r} isn't a Breaker; write breaker=Breaker()"
    )


def _ordered(listener: str, options: ListenerOptions[EventT]) -> bool:
    ordered = options.get("ordered", False)
    if type(ordered) is not bool:
        raise DeclarationError(f"listener '{listener}': ordered={ordered!r} must be True or False")
    return ordered


def _on_failure(listener: str, options: ListenerOptions[EventT]) -> OnFailure:
    chosen = options.get("on_failure", "skip")
    if chosen not in ("skip", "park_key"):
        raise DeclarationError(
            f"listener '{listener}': on_failure={chosen!r} must be 'skip' or 'park_key'"
        )
    if "on_failure" in options and not options.get("ordered"):
        raise DeclarationError(
            f"listener '{listener}': on_failure={chosen!r} is about order by key; add "
            "ordered=True, or drop it"
        )
    return chosen


def _start(listener: str, start: Start) -> Start:
    match start:
        case "new" | "all":
            return start
        case datetime() if start.tzinfo is not None:
            return start
        case int() if type(start) is int and start >= 1:
            return start
        case _:
            raise DeclarationError(
                f"listener '{listener}': start={start!r} must be 'new', 'all', a time with its "
                "zone, or a sequence from 1"
            )


class Subscribed:
    """A listener that was added; await it to be sure that it is listening.

    Before the service has started there is nothing to wait for: it starts with the service.
    """

    def __init__(
        self, one: Subscription, listen: Callable[[Subscription], Coroutine[object, object, None]]
    ) -> None:
        self.subscription = one
        self._listen = listen

    def __await__(self) -> Generator[object, None, Subscription]:
        """Wait until the durable exists and its events are pulled."""
        yield from self._listen(self.subscription).__await__()
        return self.subscription


class Decorator(Protocol[EventT]):
    """Takes an async listener of the event, and gives it back unchanged."""

    @overload
    def __call__(
        self, listener: Callable[[EventT], Awaitable[None]], /
    ) -> Callable[[EventT], Awaitable[None]]: ...
    @overload
    def __call__(
        self, listener: Callable[[EventT, Context], Awaitable[None]], /
    ) -> Callable[[EventT, Context], Awaitable[None]]: ...
