"""`Declaring`: the side of a service that takes listeners, jobs, resources and observers."""

from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar, Unpack, cast, overload

from typing_extensions import override

from eventbus.batch import BatchContext
from eventbus.classes import AnyListener
from eventbus.configuration import DriverConfig
from eventbus.connection import connection_of
from eventbus.connections import Configured
from eventbus.declaration import check_replay, replayed_from
from eventbus.dispatching import Named
from eventbus.drivers.base import Start
from eventbus.duration import Duration
from eventbus.errors import DeclarationError, NotConnectedError
from eventbus.eventmap import EventMap
from eventbus.kinds import StateEvent
from eventbus.listener import Listener
from eventbus.listenermap import ListenerMap, bindings, mapped
from eventbus.middleware.base import Context, EmitMiddleware
from eventbus.middleware.limit import Layer
from eventbus.parts import Parts
from eventbus.roster import bind
from eventbus.scheduler.recurring import FactoryT
from eventbus.scheduler.rules import Cron, Every, Rule
from eventbus.subscribing import (
    AllOptions,
    BatchDecorator,
    BatchOptions,
    Decorator,
    ListenerOptions,
    Subscribed,
)
from eventbus.subscription import EventT, Subscription
from eventbus.worker.worker import Job

__all__ = ("Declaring",)

StateT = TypeVar("StateT", bound=StateEvent)
JobT = TypeVar("JobT", bound=Job)
ResourceT = TypeVar("ResourceT", bound=AbstractAsyncContextManager[object])
ListenerT = TypeVar("ListenerT", bound=Callable[..., Awaitable[object]])


class Declaring(Parts):
    """The part of `EventService` that is used before it runs, and for listeners while it does."""

    @overload
    def subscribe(
        self, event: type[EventT], /, **options: Unpack[ListenerOptions[EventT]]
    ) -> Decorator[EventT]: ...
    @overload
    def subscribe(
        self, event: type[EventT], /, **options: Unpack[BatchOptions[EventT]]
    ) -> BatchDecorator[EventT]: ...
    @overload
    def subscribe(
        self, event: str, /, **options: Unpack[ListenerOptions[EventT]]
    ) -> Callable[[ListenerT], ListenerT]: ...
    @overload
    def subscribe(
        self, event: str, /, **options: Unpack[BatchOptions[EventT]]
    ) -> Callable[[ListenerT], ListenerT]: ...
    @overload
    def subscribe(
        self,
        event: type[EventT],
        listener: Callable[[EventT], Awaitable[object]]
        | Callable[[EventT, Context], Awaitable[object]]
        | type[Listener[EventT]],
        /,
        **options: Unpack[ListenerOptions[EventT]],
    ) -> Subscribed: ...
    @overload
    def subscribe(
        self,
        event: type[EventT],
        listener: Callable[[list[EventT]], Awaitable[None]]
        | Callable[[list[EventT], BatchContext[EventT]], Awaitable[None]],
        /,
        **options: Unpack[BatchOptions[EventT]],
    ) -> Subscribed: ...
    @overload
    def subscribe(
        self,
        event: str,
        listener: Callable[..., Awaitable[object]] | type[Listener[EventT]],
        /,
        **options: Unpack[ListenerOptions[EventT]],
    ) -> Subscribed: ...
    @overload
    def subscribe(
        self,
        event: str,
        listener: Callable[..., Awaitable[object]],
        /,
        **options: Unpack[BatchOptions[EventT]],
    ) -> Subscribed: ...
    def subscribe(
        self,
        event: type[EventT] | str,
        listener: AnyListener | None = None,
        /,
        **options: Unpack[AllOptions[EventT]],
    ) -> object:
        """Add a listener for an event class, a name, or a pattern (``user.*``, ``user.>``).

        A base class such as `DomainEvent` means every declared event that inherits it.

        Without a listener it is a decorator, with one a call to await. The listener handles each
        event at least once, in no particular order; what it raises is decided by its `Retry`.

        Raises:
            DeclarationError, SubjectError, DuplicateSubscriptionError: It is declared wrongly.
        """
        if not isinstance(event, (str, type)):  # such as a listener: `@events.subscribe` alone
            raise DeclarationError(
                f"subscribe() takes an event class, a name or a pattern, not {event!r}; "
                "write @events.subscribe(UserCreated)"
            )
        if listener is not None:
            one = self._roster.declare(event, listener, options)
            return Subscribed(one, self._listen, self._roster.redeclare)

        def decorate(function: AnyListener) -> AnyListener:
            if self._lifecycle is not None:
                raise DeclarationError(
                    f"service '{self.name}' is running; use the call form: "
                    "await events.subscribe(event, listener)"
                )
            self._roster.declare(event, function, options)
            return function

        return decorate

    def include(self, event_map: EventMap) -> None:
        """Add the listeners of a map, as `listen` does."""
        self.listen(event_map)

    def listen(self, listeners: ListenerMap | EventMap) -> None:
        """Add the listeners of a map: event names and patterns, and what listens to each.

        ::

            events.listen({
                "user.created": ["services.mail.listeners:send_welcome", greet],
                "user.*": (audit, {"queue": "audit", "tries": 3}),
            })

        ``EVENTBUS_LISTENERS`` names such a map, which is read when the service starts.

        Raises:
            DeclarationError, SubjectError, DuplicateSubscriptionError: It is declared wrongly.
        """
        if self._lifecycle is not None:
            raise DeclarationError(f"service '{self.name}' is running; add the map before")
        for one in bindings(listeners, self.name):
            self._roster.declare(one.event, one.handler, one.options)

    def _read_map(self) -> None:
        """Add the listeners of the map that the settings name, once."""
        place, self._map = self.settings.listeners if self._map is None else "", ""
        if place:
            self.listen(cast("ListenerMap", mapped(place, self.name)))

    @override
    async def unsubscribe(
        self, listener: Named, *, delete: bool = False, grace: float | None = None
    ) -> None:
        """End a listener of this process, also while the service runs.

        What runs may finish for ``grace`` seconds (that of the settings), the rest goes back. Its
        durable stays and keeps its events for when it is subscribed again, and for other
        processes; with ``delete`` it is removed with what it hasn't handled.

        Args:
            listener: Its name, its function, or what ``await subscribe`` returned.
            delete: Delete the durable too.
            grace: Seconds for what runs.

        Raises:
            DeclarationError: There is no such listener.
            DriverError: The durable may still be there.
        """
        one = self._roster.named(listener)
        await self._end(one, delete, grace)
        for other in self.subscriptions:
            if other.beside == one.durable:
                await self._end(other, delete, grace)

    async def _end(self, one: Subscription, delete: bool, grace: float | None) -> None:
        self._roster.remove(one.listener)
        if self._connections is None or self._lifecycle is None:
            return
        placed = self._connections.remove(one.listener)
        if placed is None:
            return
        seconds = self.settings.grace if grace is None else grace
        await self._lifecycle.remove(placed.durable, grace=seconds)
        if delete and not placed.ends:
            await self._lifecycle.delete(placed)

    async def replay(
        self,
        listener: Named,
        start: Start,
        *,
        until: datetime | None = None,
        again: bool = False,
    ) -> int:
        """Hand events to a listener again that it has had; return how many, once all are done.

        They come through a durable of the replay's own, so the listener's position stays what it
        is, and new events come meanwhile as ever. ``context.is_replay`` is true; retries and dead
        letters are as usual. What it emits has the ids of the first time. The events of an
        ``ordered`` listener come one at a time; one that fails is tried again after later ones.

        Args:
            listener: Its name, its function, or what ``await subscribe`` returned.
            start: ``"all"``, a time with its zone, or a stream sequence.
            until: Only what was stored before this time with its zone; up to now where None.
            again: Where the listener has an inbox or is atomic, handle also what is marked as
                handled: the effects happen once more, and once in this replay.

        Raises:
            DeclarationError: There is no such listener here, or nothing to replay from.
            NotConnectedError: The service isn't started.
            DriverError: The server can't say what there is, or the service stopped before all
                were handled; it says how many were handed out.
        """
        one = self._roster.named(listener)
        check_replay(one.listener, start, until, again=again, now=self._clock.now())
        placed = None if self._connections is None else self._connections.placed(one.listener)
        if self._connections is None or self._lifecycle is None or placed is None:
            raise NotConnectedError(
                f"listener '{one.listener}' isn't working here; start its service before a replay"
            )
        replayed = replayed_from(replace(placed, left_to={}), start, again=again)
        self._connections.lend(replayed, placed)
        return await self._lifecycle.replay(replayed, until)

    def queues(self) -> frozenset[str]:
        """Return the queues that its listeners belong to."""
        self._read_map()
        return self._roster.queues(self._default_queue)

    def work_only(self, queues: Collection[str]) -> None:
        """Leave the listeners of all other queues to other processes; they aren't provisioned.

        Raises:
            DeclarationError: The service is running.
        """
        if self._lifecycle is not None:
            raise DeclarationError(f"service '{self.name}' is running; choose queues before")
        self._read_map()
        self._roster.keep_only(queues, self._default_queue)

    def _default_queue(self, one: Subscription) -> str:
        """Return the queue of a listener's connection, else that of the settings."""
        given = self._configurations()
        if given:  # otherwise no connection has a queue
            one = bind(one, self.registry, self.discover)
        name = connection_of(one, self.registry)
        config = given.get(name or self.settings.driver)
        queue = config.queue if isinstance(config, DriverConfig) else None
        return queue or self.settings.default_queue

    def _configurations(self) -> dict[str, Configured]:
        return {**self.settings.drivers, **self._drivers}

    def cron(
        self, expression: str, /, *, timezone: str = "UTC", name: str | None = None
    ) -> Callable[[FactoryT], FactoryT]:
        """Emit an event by the clock on the wall: ``@events.cron("0 9 * * 1-5", timezone=...)``.

        The function makes the event of a tick, from the tick's time in UTC or from nothing. It is
        called ahead of time, perhaps in several processes, and must do nothing else; the work is a
        listener's. Each tick is one event, however many processes this service has. The next one
        waits on the server: if no process runs then, it comes all the same, and those after it are
        left out until one runs again.

        Args:
            expression: Minute, hour, day of the month, month, day of the week.
            timezone: Whose clock, like ``"Europe/Paris"``; daylight saving as Debian's cron.
            name: What it is called, instead of the function's name; unique in the service.

        Raises:
            DeclarationError: It is declared wrongly, or the service is running.
        """
        return self._recurs(Cron(expression, timezone), name)

    def every(
        self, interval: Duration, /, *, name: str | None = None
    ) -> Callable[[FactoryT], FactoryT]:
        """Emit an event at each whole multiple of an interval, of a second or more, since 1970 UTC.

        As `cron`, in all else.
        """
        return self._recurs(Every(interval), name)

    def _recurs(self, rule: Rule, name: str | None) -> Callable[[FactoryT], FactoryT]:
        if self._lifecycle is not None:
            raise DeclarationError(f"service '{self.name}' is running; declare what recurs before")

        def declare(factory: FactoryT) -> FactoryT:
            self._timetable.declare(rule, factory, name)
            return factory

        return declare

    def background(self, job: JobT) -> JobT:
        """Run an async function as long as the service runs: an HTTP server, a poller.

        It starts once the listeners listen and is cancelled first at a stop, within whose grace
        period it must end. If it raises, the service ends with that error. Usable as a decorator.

        Raises:
            DeclarationError: The service is running.
        """
        if self._lifecycle is not None:
            raise DeclarationError(f"service '{self.name}' is running; add background jobs before")
        self._jobs.append(job)
        return job

    def resource(self, manager: ResourceT) -> ResourceT:
        """Open something as long as the service runs: a pool, a client, a file.

        It is entered before the service connects and left after its last listener has ended,
        in the reverse order where there are several; what it raises ends the start.

        Raises:
            DeclarationError: The service is running.
        """
        if self._lifecycle is not None:
            raise DeclarationError(f"service '{self.name}' is running; add resources before")
        self._resources.append(manager)
        return manager

    def use(
        self, *, middleware: Sequence[Layer] = (), emit: Sequence[EmitMiddleware] = ()
    ) -> None:
        """Put middleware around every listener and every emit, outside of what is there.

        Raises:
            DeclarationError: The service is running; chains are built when it starts.
        """
        if self._lifecycle is not None:
            raise DeclarationError(f"service '{self.name}' is running; add middleware before")
        self._middleware[:0] = middleware
        self._emit_middleware[:0] = emit

    async def _listen(self, one: Subscription) -> Subscription:
        """Begin to work a listener, where the service runs."""
        raise NotImplementedError
