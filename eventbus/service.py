"""`EventService`: emit, subscribe, start and stop; it only wires."""

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self, TypeVar, Unpack, cast, overload

from typing_extensions import override

from eventbus import codec
from eventbus.batch import BatchContext
from eventbus.classes import AnyListener
from eventbus.clock import Clock, SystemClock
from eventbus.configuration import DriverConfig
from eventbus.connections import Configured, Connection, Connections, connection_of
from eventbus.declaration import replayed_from
from eventbus.dispatch import Dispatcher, Wiring
from eventbus.dispatching import Dispatching, Named
from eventbus.drivers.base import Driver, Receipt, Start, Status, keeps_states
from eventbus.drivers.receipt import Scheduled
from eventbus.duration import Duration
from eventbus.emission import Choose, Emitter, Publishing
from eventbus.enveloping import due_of
from eventbus.errors import DeclarationError, NotConnectedError, UnsupportedError
from eventbus.event import Event, spec_of
from eventbus.eventmap import EventMap
from eventbus.faking import Fake, active_fakes, current_fake, keeping_fake
from eventbus.inbox import Inboxes
from eventbus.kinds import StateDeleted, StateEvent
from eventbus.lifecycle import Lifecycle
from eventbus.listener import Listener, Resolver
from eventbus.listenermap import ListenerMap, bindings, mapped
from eventbus.middleware.base import Context, EmitMiddleware, EmitOptions
from eventbus.middleware.limit import Layer
from eventbus.recording import OWNER, EventStore
from eventbus.registry import Registry
from eventbus.relay.batch import Relaying
from eventbus.relay.job import RelayJob
from eventbus.roster import Roster, bind
from eventbus.scheduler.recurring import FactoryT, Timetable
from eventbus.scheduler.rules import Cron, Every, Rule
from eventbus.scheduler.ticker import tickers
from eventbus.states import States
from eventbus.stores.choice import require_sql
from eventbus.subject import Subjects, check_event_name, check_service_name
from eventbus.subscription import (
    AllOptions,
    BatchDecorator,
    BatchOptions,
    Decorator,
    EventT,
    ListenerOptions,
    Subscribed,
    Subscription,
)
from eventbus.telemetry.signals import Observer, Observers
from eventbus.tracking import Track, Tracked
from eventbus.worker.afterwards import Afterwards
from eventbus.worker.upkeep import upkeep
from eventbus.worker.worker import Job, Worker

if TYPE_CHECKING:  # pydantic-settings is slow to import; a service without one loads it at start
    from eventbus.settings import Settings
    from eventbus.stores.sql.transaction import Asked

__all__ = ("EventService",)

StateT = TypeVar("StateT", bound=StateEvent)
JobT = TypeVar("JobT", bound=Job)
ResourceT = TypeVar("ResourceT", bound=AbstractAsyncContextManager[object])
ListenerT = TypeVar("ListenerT", bound=Callable[..., Awaitable[object]])


class EventService(Dispatching):
    """One service's access to the bus.

    ::

        events = EventService("notification")

        @events.subscribe(UserCreated)
        async def send_welcome(event: UserCreated) -> None: ...

        async with events:
            await events.emit(UserCreated(user_id="u-1", email="ada@example.org"))

    Creating one does no I/O. Settings are read when it starts, unless they are given.

    ``driver`` is where events go that name none: a driver, the name of one, or a function that
    names one for each event; the settings' where not given. ``drivers`` are named configurations,
    or drivers, on top of those of the settings; each is open as long as the service runs.

    ``relay`` says whether it takes what it emitted in transactions to the stream while it runs; a
    name means another service's events, ``"*"`` everyone's.

    Raises:
        SubjectError: The name isn't 1 to 64 of ``A-Z a-z 0-9 _ -``, or blurs durables' names.
    """

    def __init__(  # noqa: PLR0913 - the one constructor with many parameters
        self,
        name: str,
        *,
        settings: "Settings | None" = None,
        driver: Driver | str | Choose | None = None,
        drivers: Mapping[str, Configured] | None = None,
        middleware: Sequence[Layer] = (),
        emit_middleware: Sequence[EmitMiddleware] = (),
        observers: Iterable[Observer] = (),
        clock: Clock | None = None,
        container: Resolver | None = None,
        relay: bool | str = False,
    ) -> None:
        super().__init__(name)
        self.name = check_service_name(name)
        self.registry = Registry()
        self._settings = settings
        self._driver = driver
        self._drivers = dict(drivers or {})
        self._clock = clock or SystemClock()
        self._observers = Observers(observers)
        self._middleware = list(middleware)
        self._emit_middleware = list(emit_middleware)
        self._map: str | None = None
        self._roster = Roster(self.name, container)
        self._relay = relay
        self._afterwards = Afterwards()
        self._timetable = Timetable()
        self._jobs: list[Job] = []
        self._store: EventStore | None = None
        self._resources: list[AbstractAsyncContextManager[object]] = []
        self._discovered = False
        self._emitter: Emitter | None = None
        self._lifecycle: Lifecycle | None = None
        self._connections: Connections | None = None

    # Declaring ---------------------------------------------------------------------------------

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

    async def replay(self, listener: Named, start: Start, *, until: datetime | None = None) -> int:
        """Hand events to a listener again that it has had; return how many, once all are done.

        They come through a durable of the replay's own, so the listener's position stays what it
        is, and new events come meanwhile as ever. ``context.is_replay`` is true; retries and dead
        letters are as usual. What it emits has the ids of the first time. The events of an
        ``ordered`` listener come one at a time; one that fails is tried again after later ones.

        Args:
            listener: Its name, its function, or what ``await subscribe`` returned.
            start: ``"all"``, a time with its zone, or a stream sequence.
            until: Only what was stored before; up to now where None.

        Raises:
            DeclarationError: There is no such listener here, or nothing to replay from.
            NotConnectedError: The service isn't started.
            DriverError: The server can't say what there is.
        """
        one = self._roster.named(listener)
        placed = None if self._connections is None else self._connections.placed(one.listener)
        if self._connections is None or self._lifecycle is None or placed is None:
            raise NotConnectedError(
                f"listener '{one.listener}' isn't working here; start its service before a replay"
            )
        replayed = replayed_from(replace(placed, left_to={}), start)
        self._connections.lend(replayed, placed)
        return await self._lifecycle.replay(replayed, until)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The listeners that are declared."""
        return tuple(self._roster)

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

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` what happens in this service, from now on."""
        self._observers.add(observer)

    def unobserve(self, observer: Observer) -> None:
        """Stop telling ``observer``."""
        self._observers.remove(observer)

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

    # Emitting ----------------------------------------------------------------------------------

    @overload
    async def emit(self, event: Event, /, **options: Unpack[EmitOptions]) -> Receipt: ...
    @overload
    async def emit(
        self, event: str, data: Mapping[str, object], /, **options: Unpack[EmitOptions]
    ) -> Receipt: ...
    async def emit(
        self,
        event: Event | str,
        data: Mapping[str, object] | None = None,
        /,
        **options: Unpack[EmitOptions],
    ) -> Receipt:
        """Emit an event, or the one that a name and its data describe.

        Returns once the event is stored (P1): every listener whose durable exists will get it, at
        least once; with ``delay`` or ``at`` not before that time. Inside a listener it inherits
        the correlation id, and a redelivered listener that emits the same again is deduplicated.

        Args:
            event: An event, or the name of a declared one.
            data: The payload that belongs to a name; strict, an unknown field is an error.
            options: See `eventbus.middleware.base.EmitOptions`.

        Raises:
            SubjectError, UnknownEventError, InvalidEventError, HeaderError: It can't be emitted.
            TypeError, ValueError: An option is unknown, or no time or duration.
            UnsupportedError: ``delay`` or ``at``, and the driver has no schedules.
            EmitUnknown: No answer in time; emit the same object again, or the same ``id=`` (P2).
            BackpressureError: The stream is full of unread events; nothing is stored.
            PayloadTooLargeError, NotAuthorizedError, NotConnectedError, PublishError: Not stored.
        """
        if data is not None or not isinstance(event, Event):
            event = self._event(event, data)
        if active_fakes():
            fake = current_fake(self.name, type(event))
            if fake is not None:
                return fake.record(event, options, service=self.name, time=self._clock.now())
        return await (self._emitter or self._ready()).emit(event, options)

    async def emit_if(
        self,
        condition: bool,
        event: Event | str,
        data: Mapping[str, object] | None = None,
        /,
        **options: Unpack[EmitOptions],
    ) -> Receipt | None:
        """Emit as `emit` does where the condition holds; return None where it doesn't."""
        if not condition:
            return None
        return await self.emit(self._event(event, data), **options)

    async def emit_unless(
        self,
        condition: bool,
        event: Event | str,
        data: Mapping[str, object] | None = None,
        /,
        **options: Unpack[EmitOptions],
    ) -> Receipt | None:
        """Emit as `emit` does where the condition doesn't hold; return None where it does."""
        return await self.emit_if(not condition, event, data, **options)

    async def emit_many(self, events: Iterable[Event]) -> list[Receipt]:
        """Emit events at once, in their order, and return their receipts in the same order.

        Not atomic: where some fail, the others are stored.

        Raises:
            ExceptionGroup: What the emits that failed raised.
        """
        if active_fakes():
            return [await self.emit(one) for one in events]
        return await self._ready().emit_many(events)

    async def cancel(self, scheduled: Scheduled | str | None) -> bool:
        """Have a delayed event never fire; return whether it was still in time.

        The answer is exact: after True no listener gets it, after False all do, or have. One that
        is cancelled is cancelled, so doing it again is True again (for the duplicate window).

        Args:
            scheduled: What its receipt says, or the id of an event that this service delayed.
                None, as of an event that wasn't delayed, is too late.

        Raises:
            UnsupportedError: The driver has no schedules.
            DriverError: Nobody knows now; cancel it again.
        """
        fake, id = keeping_fake(scheduled)
        if fake is not None:
            return fake.cancel(id)
        return await self._ready().cancel(scheduled)

    async def reschedule(
        self,
        scheduled: Scheduled | str | None,
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
    ) -> Scheduled | None:
        """Have a delayed event fire at another time, from now or on the clock.

        It stays the same event, with the same id; its expiry moves with it. Returns the new place,
        or None where it was too late, or it is cancelled.

        Raises:
            TypeError, ValueError: No time is given, two are, or what is given is none.
            UnsupportedError, DriverError: As `cancel`.
        """
        fake, id = keeping_fake(scheduled)
        due = due_of(delay, at, self._clock.now())
        if fake is not None and due is not None:
            return fake.reschedule(id, due)
        return await self._ready().reschedule(scheduled, delay=delay, at=at)

    async def state(self, event: type[StateT], key: str) -> StateT | None:
        """Return the last state event of a key; None where there is none, or it was deleted.

        Raises:
            InvalidEventError, UpcastError, DecodeError: What is kept doesn't fit the class.
            UnsupportedError: The service's driver keeps no states.
            NotConnectedError, DriverError: The server can't say now.
        """
        return await self._states(event).last(event, key)

    def states(self, event: type[StateT]) -> AsyncIterator[StateT]:
        """Iterate over the last state event of each key; raises as `state`.

        ``async for profile in events.states(UserProfile)``: for who starts to keep a copy.
        """
        return self._states(event).all(event)

    async def delete_state(
        self, event: type[StateEvent], key: str, /, **options: Unpack[EmitOptions]
    ) -> Receipt:
        """Delete the state of a key, and tell listeners that take `StateDeleted`; as `emit`."""
        self.registry.register(event)
        return await self.emit(StateDeleted.of(event, key), **options)

    def _states(self, event: type[StateEvent]) -> States:
        if self._connections is None:
            raise NotConnectedError(
                f"service '{self.name}' isn't started, so it can't read states"
            )
        driver = self._connections.driver_of(spec_of(event))
        if not keeps_states(driver):
            raise UnsupportedError(
                driver=driver.name,
                feature="keeping states",
                remedy="use the driver 'jetstream' or 'memory'",
            )
        return States(driver, self.registry, self._clock)

    @property
    def store(self) -> EventStore:
        """The event store: ``async for one in events.store.query(name="user.*")``."""
        if self._store is None:
            self._store = EventStore(self.settings)
        return self._store

    def transaction(self, session: "Asked") -> AbstractAsyncContextManager[None]:
        """Let the emits of a block take part in a database transaction of yours.

        ::

            async with session.begin(), events.transaction(session):
                session.add(order)
                await events.emit(OrderPlaced(order_id=order.id))

        Each emit stores a row in the outbox, in that transaction: committed, the event goes as
        soon as a relay runs, and rolled back, it never was; savepoints included. You begin,
        commit and roll back. Receipts are ``pending``. ``emit(..., immediate=True)`` goes direct,
        and so does what a task emits that outlives the block.

        Args:
            session: A session or connection of SQLAlchemy 2, async or not.

        Raises:
            SettingsError: SQLAlchemy isn't installed.
        """
        require_sql()
        from eventbus.stores.sql.transaction import taking_part

        return taking_part(session, self._afterwards, notify=self.settings.outbox_notify)

    @override
    def _event(self, event: Event | str, data: Mapping[str, object] | None) -> Event:
        if isinstance(event, Event):
            if data is not None:
                raise TypeError("emit() takes an event, or a name and its data, not both")
            return event
        if not isinstance(event, str):
            raise TypeError(f"emit() takes an event, or a name and its data, not {event!r}")
        if event not in self.registry:
            check_event_name(event)
            self.discover()
        return codec.validate(self.registry.resolve(event), {} if data is None else data)

    @override
    def _subjects(self) -> Subjects:
        return self.settings.subjects

    @override
    async def _emit(self, event: Event, options: EmitOptions) -> Receipt:
        return await self.emit(event, **options)

    def _ready(self) -> Emitter:
        if self._emitter is None:
            raise NotConnectedError(
                f"service '{self.name}' isn't started; use 'async with events:' or "
                "'await events.start()' before emit"
            )
        return self._emitter

    # Testing -----------------------------------------------------------------------------------

    def fake(
        self,
        *,
        only: Iterable[type[Event] | str] = (),
        except_: Iterable[type[Event] | str] = (),
    ) -> Fake:
        """Record what this service emits instead of publishing it, from now on.

        ``with events.fake() as fake:`` ends it with the block, else `Fake.restore` does. The
        service need not be started. See `eventbus.faking.Fake`.
        """
        return Fake(self.name, only=only, except_=except_, listening=lambda: self.subscriptions)

    def track(self, *others: Tracked, timeout: Duration = 10.0) -> Track:
        """Wait for all that the emits of a block cause here and in other services.

        See `eventbus.tracking.Track`.
        """
        return Track((self, *others), timeout=timeout)

    # Running -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, provision, and listen where there are listeners; returns when that is done.

        Waits for a server that refuses connections; cancel it to give up.

        Raises:
            ConfigurationError: Something is declared or set up wrongly.
            NotAuthorizedError, CertificateError: The server refuses us.
        """
        if self._lifecycle is not None:
            raise DeclarationError(f"service '{self.name}' is already started")
        if self.settings.store_enabled:
            self._roster.redeclare(self.store.subscription())
        self._read_map()
        self._roster.bind_all(self.registry, self.discover)
        connections = self._connections = self._connected()
        self._inboxes = Inboxes(self.settings, self.transaction, self._clock)
        observe, clock = self._observers, self._clock
        connections.driver.watch(observe)
        self._emitter = Emitter(self._publishing(connections))
        try:
            placed = [connections.add(one) for one in self._roster]
            worked = [one for one in placed if one is not None]
            subjects = self.settings.subjects
            ticking = tickers(self._timetable, self._emitter, subjects, observe, clock)
            jobs = (
                *self._jobs,
                *self._upkeep(connections, worked),
                *self._relaying(),
                *ticking,
            )
            worker = Worker(
                connections.driver,
                self._dispatcher,
                jobs=jobs,
                clock=clock,
                concurrency=self.settings.concurrency,
            )
            self._lifecycle = Lifecycle(
                self.name,
                connections.driver,
                worker,
                observe=observe,
                resources=(*self._resources, self._inboxes, self.store),
                answering=self._answering.through(self._asking, subjects),
            )
            if self._has_inbox:
                await self._inboxes.check()
            await self._lifecycle.start(worked, declared=self.subscriptions)
        except BaseException:
            self._ended()
            raise

    async def stop(self, grace: float | None = None) -> None:
        """Finish what runs, hand the rest back, and close; ends within ``grace`` seconds.

        Listeners that don't finish in time are cancelled and their events go back to the server.
        ``grace`` is that of the settings where it isn't given. Does nothing when not started.
        """
        if self._lifecycle is None:
            return
        try:
            await self._lifecycle.stop(self.settings.grace if grace is None else grace)
        finally:
            self._ended()

    def _ended(self) -> None:
        self._lifecycle = self._emitter = None
        if self._connections is not None:
            self._connections.end()
        self._connections = None

    async def run(self) -> None:
        """Start, and work until this is cancelled or `stop` is called; then stop.

        Raises:
            EventBusError: As `start`.
        """
        await self.start()
        lifecycle = self._lifecycle
        assert lifecycle is not None, "started without a lifecycle"
        try:
            await lifecycle.wait()
        finally:
            await self.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop."""
        await self.stop()

    def status(self) -> Status:
        """Return whether emits and listeners work now; safe to call from any thread."""
        lifecycle = self._lifecycle
        if lifecycle is None:
            return Status((f"service '{self.name}' isn't started",))
        return lifecycle.status()

    def in_flight(self) -> dict[str, int]:
        """Return how many deliveries are in hand, by listener."""
        return self._lifecycle.in_flight() if self._lifecycle is not None else {}

    async def _listen(self, one: Subscription) -> Subscription:
        if self._lifecycle is not None:
            one = self._roster.bind(one, self.registry, self.discover)
            assert self._connections is not None, "a service that runs has connections"
            placed = self._connections.add(one)
            if placed is not None:
                await self._lifecycle.add(placed)
        return one

    @property
    def settings(self) -> "Settings":
        """The settings it was given, else those of the environment.

        Raises:
            SettingsError: The environment holds a wrong one.
        """
        if self._settings is None:
            from eventbus.settings import Settings

            self._settings = Settings.load()
        return self._settings

    def discover(self) -> Registry:
        """Make every event of the schema packages known, and return the registry.

        Raises:
            DeclarationError: A package that is set can't be imported, or one has an error.
        """
        if not self._discovered:
            for package in self.settings.schemas:
                # The default package may be missing: events can be declared anywhere.
                if "schemas" in self.settings.model_fields_set or find_spec(package):
                    self.registry.discover(package)
            self._discovered = True
        return self.registry

    def _connected(self) -> Connections:
        return Connections(
            self.name,
            self.settings,
            default=_chosen(self._driver)[0],
            given=self._configurations(),
            wire=self._wired,
            clock=self._clock,
        )

    def _upkeep(self, connections: Connections, worked: Sequence[Subscription]) -> Iterator[Job]:
        """Yield what runs beside the listeners, for each driver that works one."""
        for driver in connections.drivers:
            if any(connections.working(one.durable) is driver for one in worked):
                yield from upkeep(driver, partial(self._on, driver), self._observers, self._clock)

    def _on(self, driver: Driver) -> tuple[Subscription, ...]:
        """Return the listeners that a driver works."""
        connections = self._connections
        if connections is None:
            return ()
        return tuple(one for one in self._roster if connections.working(one.durable) is driver)

    def _dispatcher(self, one: Subscription) -> Dispatcher:
        assert self._connections is not None, "a service that runs has connections"
        wiring = self._connections.wiring(one.durable)
        if one.service == OWNER:  # the event store keeps what no class knows, too
            wiring = replace(wiring, registry=Registry())
        return Dispatcher(one, wiring)

    def _relaying(self) -> tuple[Job, ...]:
        if not self._relay and not self._has_inbox:
            return (self._afterwards.run,)
        assert self._connections is not None, "a service that runs has connections"
        source = self._relay if isinstance(self._relay, str) else self.name
        route = self._connections.default.route
        relaying = Relaying(route.driver, route.subjects, self._observers, self._clock)
        relay = RelayJob(self.settings.store_url, source, relaying)
        pruning = (self._inboxes.prune,) if self._has_inbox else ()
        return (self._afterwards.run, relay.run, *pruning)

    @property
    def _has_inbox(self) -> bool:
        return any(one.inbox == "sql" for one in self._roster)

    def _publishing(self, connections: Connections) -> Publishing:
        default = connections.default.route
        return Publishing(
            driver=default.driver,
            subjects=default.subjects,
            source=self.name,
            clock=self._clock,
            observe=self._observers,
            middleware=tuple(self._emit_middleware),
            named=connections.routes,
            run_after=default.run_after,
            choose=_chosen(self._driver)[1],
        )

    def _wired(self, connection: Connection) -> Wiring:
        return Wiring(
            driver=connection.driver,
            registry=self.registry,
            subjects=connection.settings.subjects,
            observe=self._observers,
            clock=self._clock,
            emit=self.emit,
            middleware=tuple(self._middleware),
            retry=connection.retry,
            park_after=connection.settings.park_after,
            inbox=self._inboxes,
        )


def _chosen(driver: Driver | str | Choose | None) -> tuple[Driver | str | None, Choose | None]:
    """Tell a driver, or the name of one, from a function that names them."""
    if callable(driver) and not hasattr(driver, "publish"):
        return None, driver
    return cast("Driver | str | None", driver), None
