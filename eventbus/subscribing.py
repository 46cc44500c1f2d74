"""What `EventService.subscribe` takes and gives: the options, the decorators, and `Subscribed`."""

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Generic, Protocol, Required, Self, TypedDict, TypeVar, overload

from eventbus.batch import Batch, BatchContext
from eventbus.drivers.base import Start
from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError
from eventbus.event import Event
from eventbus.listener import Listener
from eventbus.middleware.base import Context
from eventbus.middleware.breaker import Breaker
from eventbus.middleware.limit import Layer
from eventbus.retry import Retry
from eventbus.subscription import EventT, FailedHook, Inbox, Mode, OnFailure, Subscription

__all__ = (
    "AllOptions",
    "BatchDecorator",
    "BatchOptions",
    "Decorator",
    "ListenerOptions",
    "Subscribed",
)

ResultT = TypeVar("ResultT")


class ListenerOptions(TypedDict, Generic[EventT], total=False):
    """The options of `EventService.subscribe`."""

    name: str
    """The listener's name, unique in its service; its function's name where not given."""
    retry: Retry
    """When and how often a failed event is tried again; from the settings where not given."""
    tries: int
    """Total runs, the first included: `Retry.attempts`, with the rest from the settings."""
    backoff: Duration | Sequence[Duration]
    """Delays before the second run, the third, and so on; the last one repeats: `Retry.delays`."""
    max_exceptions: int
    """After so many runs that ended with an exception it is a dead letter, whatever ``tries`` are
    left. `RetryLater` is no exception."""
    can_retry: bool | Callable[[EventT, Exception], bool]
    """Told what a run raised, whether the event may be tried again; else a dead letter at once."""
    retry_until: Duration | datetime | Callable[[EventT], datetime]
    """When no attempt may begin any more: so long after the first one began, at a time, or at one
    that depends on the event. The number of attempts is unlimited then, unless it is given."""
    delay: Duration | Callable[[EventT], Duration]
    """How long after it is stored each event is handled; the server waits."""
    when: Callable[[EventT], bool]
    """Tells which events it wants. Others are acknowledged and counted with the outcome
    ``dropped``; what it raises counts as raised by the listener."""
    concurrency: int
    """How many events it handles at once in this process; 16 where not given."""
    timeout: Duration
    """Longest run; then it is cancelled and the attempt has failed. 5 minutes where not given,
    so that a hung listener can't hold an event for ever."""
    queue: str
    """The named group it belongs to, for ``eventbus run --queue``."""
    connection: str
    """The configured driver that it works on, and then nothing else; where not given, that of its
    event's ``driver=``, else the service's, and what is emitted through `sync` beside."""
    start: Start
    """Where a new durable begins: ``"new"`` (the default), ``"all"``, a time, or a sequence."""
    mode: Mode
    """Which process gets an event. ``"work"`` (where not given): one of them, from a durable that
    all share. ``"fanout"``: every process, each from a durable of its own, which is deleted when
    the process stops, and 5 minutes or more after it died; with `Settings.instance` it is kept for
    as long, and the process goes on where it was. ``"ephemeral"``: every process, from now on and
    as long as it runs; what comes while it is gone, or has no room to stay, it never gets."""
    middleware: Sequence[Layer | Breaker | str]
    """Wrapped around this listener, inside the service's own; the first is the outermost. Limits
    may be strings such as ``"throttle:10,1"``; a breaker is the same as ``breaker=``."""
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
    inbox: bool | Inbox
    """Handle each event once (P3). With True the listener runs in a transaction of the store's
    database, ``context.session``, which ends with a mark of the event: what it writes there
    happens exactly once, and what it emits goes with it, through the outbox, which the service
    relays. ``"kv"`` marks events on the server instead, after the run: most redeliveries are
    skipped, but a crash between the run and the mark repeats it."""
    atomic: bool
    """For a listener that only emits: what it emits and the mark that the event is handled are
    stored together once it has returned, or not at all. So each of its emits is in the stream
    exactly once, whatever crashes when. Receipts are ``pending`` in it; at most 999 emits in one
    run, none of them delayed, a state, or through another driver."""
    failed: FailedHook[EventT]
    """Called once an event has become a dead letter, after its last attempt or without one, and
    not where it couldn't be read. The letter is stored by then. At least once: a crash before the
    end repeats the last attempt, then this. It has the listener's time limit; what it raises is
    told to the observers as `FailedHookRaised`, and changes nothing."""
    after_commit: bool
    """Where an event is emitted in a transaction and handled within the emit (driver ``sync``),
    run after the commit, and not if it rolls back. What it raises is told to the observers."""


class BatchOptions(ListenerOptions[EventT], Generic[EventT], total=False):
    """The options of `EventService.subscribe` for a listener that takes many events at once."""

    batch: Required[Batch]
    """Give it a list of events. Each keeps its own attempts, retries and dead letter; those that
    it calls `BatchContext.fail` for have failed, all of them where it raises. ``timeout`` is that
    of a batch, ``concurrency`` how many batches run at once, 1 where not given."""


class AllOptions(ListenerOptions[EventT], Generic[EventT], total=False):
    """Every option that there is."""

    batch: Batch


class Subscribed:
    """A listener that was added; await it to be sure that it is listening.

    Before the service has started there is nothing to wait for: it starts with the service.
    Options can be added until then: ``events.subscribe(...).via_queue("emails")``.
    """

    def __init__(
        self,
        one: Subscription,
        listen: Callable[[Subscription], Coroutine[object, object, Subscription]],
        redeclare: Callable[[Subscription], None],
    ) -> None:
        self.subscription = one
        self._listen = listen
        self._redeclare = redeclare

    def via_queue(self, queue: str) -> Self:
        """Put it into a queue, as ``queue=`` does."""
        return self._changed(replace(self.subscription, queue=queue))

    def via_connection(self, connection: str) -> Self:
        """Let a named driver work it, as ``connection=`` does."""
        return self._changed(replace(self.subscription, connection=connection))

    def with_delay(self, delay: Duration) -> Self:
        """Let each event wait, as ``delay=`` does.

        Raises:
            DeclarationError: It is no duration.
        """
        try:
            given = seconds(delay)
        except ValueError as exc:
            raise DeclarationError(
                f"listener '{self.subscription.listener}': delay: {exc}"
            ) from exc

        def fixed(_: Event) -> float:
            return given

        return self._changed(replace(self.subscription, delay=fixed))

    def _changed(self, one: Subscription) -> Self:
        self._redeclare(one)
        self.subscription = one
        return self

    def __await__(self) -> Generator[object, None, Subscription]:
        """Wait until the durable exists and its events are pulled."""
        self.subscription = yield from self._listen(self.subscription).__await__()
        return self.subscription


class BatchDecorator(Protocol[EventT]):
    """Takes an async listener of many events at once, and gives it back unchanged."""

    @overload
    def __call__(
        self, listener: Callable[[list[EventT]], Awaitable[None]], /
    ) -> Callable[[list[EventT]], Awaitable[None]]: ...
    @overload
    def __call__(
        self, listener: Callable[[list[EventT], BatchContext[EventT]], Awaitable[None]], /
    ) -> Callable[[list[EventT], BatchContext[EventT]], Awaitable[None]]: ...


class Decorator(Protocol[EventT]):
    """Takes an async listener of the event, or a class of them, and gives it back unchanged."""

    @overload
    def __call__(
        self, listener: Callable[[EventT], Awaitable[ResultT]], /
    ) -> Callable[[EventT], Awaitable[ResultT]]: ...
    @overload
    def __call__(
        self, listener: Callable[[EventT, Context], Awaitable[ResultT]], /
    ) -> Callable[[EventT, Context], Awaitable[ResultT]]: ...
    @overload
    def __call__(self, listener: type[Listener[EventT]], /) -> type[Listener[EventT]]: ...
