"""`EventService`: a service's access to the bus; here is how it starts, runs and stops."""

from collections.abc import (
    Iterator,
    Sequence,
)
from dataclasses import replace
from functools import partial
from typing import Self, cast

from eventbus.connection import Connection
from eventbus.connections import Connections
from eventbus.declaring import Declaring
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Driver, Status
from eventbus.emission import Choose, Emitter, Publishing
from eventbus.emitting import Emitting
from eventbus.errors import DeclarationError
from eventbus.inbox import Inboxes
from eventbus.lifecycle import Lifecycle
from eventbus.recording import OWNER
from eventbus.registry import Registry
from eventbus.relay.batch import Relaying
from eventbus.relay.job import RelayJob
from eventbus.scheduler.ticker import tickers
from eventbus.subscription import (
    Subscription,
)
from eventbus.wiring import Wiring
from eventbus.worker.upkeep import upkeep
from eventbus.worker.worker import Job, Worker

__all__ = ("EventService",)


class EventService(Declaring, Emitting):
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
        self._inboxes = Inboxes(
            self.settings, self.transaction, self._clock, required=self._has_inbox
        )
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
