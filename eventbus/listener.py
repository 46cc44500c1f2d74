"""`Listener`, the base of listeners that are classes, and what a run of one collects to emit."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar, Unpack

from eventbus.event import Event
from eventbus.middleware.base import Context, Emit, EmitOptions

__all__ = ("Collected", "Listener", "Resolver", "running")

EventT = TypeVar("EventT", bound=Event)
BuiltT = TypeVar("BuiltT")


class Collected:
    """Events that a listener wants emitted once it has succeeded, in their order."""

    def __init__(self) -> None:
        self._items: list[tuple[Event, EmitOptions]] = []

    def append(self, event: Event, /, **options: Unpack[EmitOptions]) -> None:
        """Add an event, with the options of its emit."""
        self._items.append((event, options))

    collect = append

    def __iter__(self) -> Iterator[Event]:
        """Iterate over the events."""
        return (event for event, _ in self._items)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._items)

    async def emit(self, emit: Emit) -> None:
        """Emit them, one after the other; the first that can't be emitted ends it."""
        for event, options in self._items:
            await emit(event, **options)


@dataclass(frozen=True, slots=True)
class _Run:
    context: Context
    collected: Collected = field(default_factory=Collected)


_run: ContextVar[_Run | None] = ContextVar("eventbus_listener_run", default=None)


@contextmanager
def running(context: Context) -> Generator[Collected]:
    """Make a context that of the listener objects in a block, and give what they collect."""
    run = _Run(context)
    token = _run.set(run)
    try:
        yield run.collected
    finally:
        _run.reset(token)


class Listener(Generic[EventT]):
    """A listener as a class: built for each run, by the service's container.

    ::

        class Welcome(Listener[UserCreated]):
            options: ClassVar = {"retry": Retry(attempts=8), "queue": "emails"}

            def __init__(self, mailer: Mailer) -> None:
                self.mailer = mailer

            async def handle(self, event: UserCreated) -> None:
                await self.mailer.send(event.email)
                self.events.append(UserWelcomed(user_id=event.user_id))

        events.subscribe(UserCreated, Welcome)

    Its name is that of the class, where ``options`` has none.
    """

    options: ClassVar[Mapping[str, object]] = {}
    """Options of `EventService.subscribe`; those that are given there win."""

    async def handle(self, event: EventT) -> None:
        """Handle an event; at least once for each. A subclass has to say how."""
        raise NotImplementedError

    async def failed(self, event: EventT, error: Exception) -> None:
        """Be told that an event became a dead letter, as ``failed=`` of `subscribe`."""

    @property
    def context(self) -> Context:
        """What is known of the event that it handles.

        Raises:
            RuntimeError: It handles none now.
        """
        run = _run.get()
        if run is None:
            raise RuntimeError(
                f"{type(self).__name__} has a context only while it handles an event"
            )
        return run.context

    @property
    def events(self) -> Collected:
        """What is emitted once `handle` or `failed` has succeeded, with the event as its cause.

        Outside of a run, as in a test that calls `handle`, it is the object's own.
        """
        run = _run.get()
        if run is not None:
            return run.collected
        own: Collected = self.__dict__.setdefault("_collected", Collected())
        return own


class Resolver(Protocol):
    """Builds the objects of listener classes; `eventbus.containers` has some."""

    def __call__(
        self, listener: type[BuiltT], context: Context, /
    ) -> AbstractAsyncContextManager[BuiltT]:
        """Return a context manager that gives an object for one run, and ends what it needed.

        What it raises counts as raised by the listener.
        """
        ...
