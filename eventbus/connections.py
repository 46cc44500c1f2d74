"""`Connections`: the drivers of one service; what works each listener, and where emits may go."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeAlias

from typing_extensions import override

from eventbus.clock import Clock
from eventbus.configuration import DriverConfig
from eventbus.connection import Connection, connection_of
from eventbus.drivers.abilities import Immediate, is_immediate
from eventbus.drivers.base import (
    Consumer,
    ConsumerSpec,
    Deliver,
    Driver,
    Features,
    InOrder,
    Notify,
    Status,
)
from eventbus.drivers.choice import DRIVERS, driver_of
from eventbus.drivers.room import DurableState
from eventbus.drivers.sync import SyncDriver
from eventbus.drivers.wrappers import Wrapper
from eventbus.emission import Route
from eventbus.envelope import Envelope
from eventbus.errors import DeclarationError, did_you_mean
from eventbus.event import EventSpec
from eventbus.immediate import ImmediateListener
from eventbus.subscription import Subscription
from eventbus.wiring import Wiring

if TYPE_CHECKING:  # slow to import, and whoever has settings has loaded it
    from eventbus.settings import Settings

__all__ = ("Configured", "Connections")

QUEUE = "queue"
"""The name of whatever driver a service keeps its events in."""
SYNC = "sync"

Configured: TypeAlias = DriverConfig | Driver
"""What a connection's name stands for: a configuration, or a driver that is made."""


class Connections:
    """All drivers of one service, among them one that runs its own listeners at once.

    A listener without ``connection=`` also hears what is emitted through `sync`. One whose events
    all name an immediate driver hears nothing else, and needs no durable.

    Args:
        service: Whose they are.
        settings: What a configuration's own settings are on top of.
        default: The driver where nothing else is named, or its name; that of the settings if None.
        given: The named configurations and drivers.
        wire: Gives what the listeners of a connection share.
        clock: What drivers wait with.

    Raises:
        SettingsError, DeclarationError: A name or a configuration is wrong.
        UnsupportedError: A configuration asks for what its driver can't do.
    """

    def __init__(
        self,
        service: str,
        settings: "Settings",
        *,
        default: Driver | str | None = None,
        given: Mapping[str, Configured],
        wire: Callable[[Connection], Wiring],
        clock: Clock,
    ) -> None:
        self._wire = wire
        self._wirings: dict[str, Wiring] = {}
        self._service = service
        self._settings = settings
        self._given = given
        self._clock = clock
        self._open: dict[str, Connection] = {}
        self._working: dict[str, Connection] = {}
        self._attached: dict[str, list[Callable[[], None]]] = {}
        self._placed: dict[str, Subscription] = {}
        self._at_once: dict[str, ImmediateListener] = {}
        if default is None or isinstance(default, str):
            self.default = self._opened(default or settings.driver)
        else:
            self.default = self._connected(default.name, default)
        self._alias()
        for name in given:
            self._opened(name)
        self._local = self._immediate()
        self.driver: Driver = _Several(self)
        """All of them as one, to enter, to provision and to consume."""

    @property
    def routes(self) -> Mapping[str, Route]:
        """The ways of an emit, by the names that it or its event may give."""
        return {name: one.route for name, one in self._open.items()}

    @property
    def drivers(self) -> tuple[Driver, ...]:
        """Every driver once, the default one first."""
        return tuple({id(one.driver): one.driver for one in self._open.values()}.values())

    def driver_of(self, spec: EventSpec) -> Driver:
        """Return the driver that an event goes through where the emit names none."""
        named = self._open.get(spec.driver or "")
        return (named or self.default).driver

    def working(self, durable: str) -> Driver:
        """Return the driver that works a listener, by its durable."""
        return self._working.get(durable, self.default).driver

    def wiring(self, durable: str) -> Wiring:
        """Return what a listener shares with the others of its connection."""
        return self._wired(self._working[durable])

    def add(self, one: Subscription) -> Subscription | None:
        """Place a listener; return it as a worker has to work it, None where none has to.

        Raises:
            DeclarationError: It names a connection that there is none of.
            UnsupportedError: It asks for what its driver can't do.
        """
        name = connection_of(one, self._wired(self.default).registry)
        connection = self.default if name is None else self._opened(name)
        one = connection.place(one)
        wiring = self._wired(connection)
        # The one that it stands beside hears the same.
        hears = one.connection is None and not one.beside
        hearing = {id(self._local): self._local} if hears else {}
        if is_immediate(connection.driver) and not one.beside:
            hearing[id(connection.driver)] = connection.driver
        at_once = self._at_once[one.listener] = ImmediateListener(one, wiring)
        for driver in hearing.values():
            detach = driver.attach(one.consumer(), at_once)
            self._attached.setdefault(one.listener, []).append(detach)
        self._placed[one.listener] = one
        if is_immediate(connection.driver):
            return None
        self._working[one.durable] = connection
        return one

    def lend(self, one: Subscription, like: Subscription) -> None:
        """Work a listener's replay where the listener is worked."""
        self._working[one.durable] = self._working[like.durable]

    def end(self) -> None:
        """Let nobody hear anything more that is emitted at once."""
        for listener in tuple(self._attached):
            self.remove(listener)

    def remove(self, listener: str) -> Subscription | None:
        """Let a listener hear nothing more that is emitted at once; return how it was placed."""
        for detach in self._attached.pop(listener, ()):
            detach()
        self._at_once.pop(listener, None)
        return self._placed.pop(listener, None)

    async def ask(self, listener: str, envelope: Envelope) -> object:
        """Run a listener on an event at once, and return its result; raises what it raised."""
        at_once = self._at_once.get(listener)
        return None if at_once is None else await at_once.ask(envelope)

    def placed(self, listener: str) -> Subscription | None:
        """Return a listener as it is worked; None where it isn't."""
        return self._placed.get(listener)

    def _wired(self, connection: Connection) -> Wiring:
        found = self._wirings.get(connection.name)
        if found is None:
            found = self._wirings[connection.name] = self._wire(connection)
        return found

    def _opened(self, name: str) -> Connection:
        found = self._open.get(name)
        if found is not None:
            return found
        given = self._given.get(name)
        if given is None and name not in DRIVERS and name != self._settings.driver:
            known = (*self._open, *self._given, *DRIVERS)
            listed, hint = ", ".join(dict.fromkeys(known)), did_you_mean(name, known)
            raise DeclarationError(
                f"service '{self._service}' has no connection '{name}' (it has {listed}){hint}"
            )
        if given is None:
            given = DriverConfig(driver=name)
        if isinstance(given, DriverConfig):
            return self._made(name, given)
        return self._connected(name, given)

    def _made(self, name: str, config: DriverConfig) -> Connection:
        changes = {**config.settings, "driver": config.driver}
        if config.failed_queue is not None:
            changes["failed_queue"] = config.failed_queue
        settings = self._settings.override(**changes)
        if config.driver == SYNC and self._settings.driver != SYNC:
            # Only where the environment says so do services of one process run each other's.
            driver: Driver = SyncDriver(namespace=settings.namespace, clock=self._clock)
        else:
            driver = driver_of(settings, self._service, clock=self._clock)
        return self._connected(name, driver, config, settings)

    def _connected(
        self,
        name: str,
        driver: Driver,
        config: DriverConfig | None = None,
        settings: "Settings | None" = None,
    ) -> Connection:
        connection = Connection(
            name, driver, settings or self._settings, config or DriverConfig(driver=driver.name)
        )
        connection.check()
        self._open[name] = connection
        return connection

    def _alias(self) -> None:
        """Give the default driver its other names, where they stand for nothing else."""
        names = [self.default.driver.name]
        if self.default.driver.features.stores:
            names.append(QUEUE)
        for name in names:
            if name not in self._given:
                self._open.setdefault(name, self.default)

    def _immediate(self) -> Immediate:
        """Return what runs this service's listeners at once."""
        if is_immediate(self.default.driver):
            return self.default.driver
        driver = self._opened(SYNC).driver
        if not is_immediate(driver):
            raise DeclarationError("the connection 'sync' must be a driver that runs listeners")
        return driver


class _Several(Wrapper):
    """The drivers of a service as one; what isn't about one listener goes to the default one."""

    def __init__(self, connections: Connections) -> None:
        super().__init__(connections.default.driver)
        self._connections = connections
        self._stack = AsyncExitStack()

    @property
    @override
    def features(self) -> Features:
        """Those of the default one; what a listener asks for is checked when it is placed."""
        return replace(self.inner.features, ordered=True)

    @override
    def watch(self, notify: Notify) -> None:
        """Tell ``notify`` of every later signal of each."""
        for driver in self._connections.drivers:
            driver.watch(notify)

    @override
    async def __aenter__(self) -> Self:
        """Enter each."""
        async with AsyncExitStack() as stack:
            for driver in self._connections.drivers:
                await stack.enter_async_context(driver)
            self._stack = stack.pop_all()
        return self

    @override
    async def __aexit__(self, *exc: object) -> None:
        """Leave each."""
        await self._stack.aclose()

    @override
    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Provision each listener's durable where it is worked."""
        by_driver: dict[int, list[ConsumerSpec]] = defaultdict(list)
        for one in consumers:
            by_driver[id(self._connections.working(one.durable))].append(one)
        for driver in self._connections.drivers:
            await driver.provision(by_driver[id(driver)])

    @override
    async def report_orphans(self, declared: Sequence[ConsumerSpec]) -> None:
        """Tell of each durable of this service, on any driver, that nobody declares any more."""
        for driver in self._connections.drivers:
            await driver.report_orphans(declared)

    @override
    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Start a consumer where its listener is worked."""
        return await self._connections.working(consumer.durable).consume(consumer, deliver)

    @override
    async def consume_in_order(self, consumer: ConsumerSpec, taker: InOrder) -> Consumer:
        """Start an ordered consumer where its listener is worked."""
        return await self._connections.working(consumer.durable).consume_in_order(consumer, taker)

    @override
    async def remove(self, consumer: ConsumerSpec) -> None:
        """Delete a durable where it is worked."""
        await self._connections.working(consumer.durable).remove(consumer)

    @override
    async def measure(self, durable: str) -> DurableState | None:
        """Return how far a durable is, where it is worked."""
        return await self._connections.working(durable).measure(durable)

    @override
    def status(self) -> Status:
        """Return what is known now of all."""
        return Status(
            tuple(one for each in self._connections.drivers for one in each.status().problems)
        )
