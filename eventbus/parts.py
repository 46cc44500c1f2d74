"""`Parts`: what the three sides of an `EventService` share: its name, settings, and what it holds."""

from collections.abc import (
    Iterable,
    Mapping,
    Sequence,
)
from importlib.util import find_spec
from typing import TYPE_CHECKING

from eventbus.clock import Clock, SystemClock
from eventbus.connections import Configured, Connections
from eventbus.dispatching import Dispatching
from eventbus.drivers.base import Driver
from eventbus.emission import Choose, Emitter
from eventbus.errors import EventBusError
from eventbus.listener import Resolver
from eventbus.middleware.base import EmitMiddleware
from eventbus.middleware.limit import Layer
from eventbus.registry import Registry
from eventbus.roster import Roster
from eventbus.scheduler.recurring import Timetable
from eventbus.subject import check_service_name
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import Observer, Observers
from eventbus.worker.afterwards import Afterwards

if TYPE_CHECKING:  # pydantic-settings is slow to import; a service without one loads it at start
    from contextlib import AbstractAsyncContextManager

    from eventbus.lifecycle import Lifecycle
    from eventbus.recording import EventStore
    from eventbus.settings import Settings
    from eventbus.worker.worker import Job

__all__ = ("Parts",)


class Parts(Dispatching):
    """The state of a service; see `eventbus.service.EventService` for what it is given."""

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
        self._discovery_failed: EventBusError | None = None
        self._emitter: Emitter | None = None
        self._lifecycle: Lifecycle | None = None
        self._connections: Connections | None = None

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

        They are imported once, at the first call or the first emit of an unknown name; what that
        raised is raised again by each later one.

        Raises:
            DeclarationError: A package that is set can't be imported, or one has an error.
        """
        if self._discovery_failed is not None:
            raise self._discovery_failed
        if not self._discovered:
            try:
                self._import_schemas()
            except EventBusError as exc:
                # A module that failed is imported anew each time, and emits would wait for that.
                self._discovery_failed = exc
                raise
            self._discovered = True
        return self.registry

    def _import_schemas(self) -> None:
        for package in self.settings.schemas:
            # The default package may be missing: events can be declared anywhere.
            if "schemas" in self.settings.model_fields_set or find_spec(package):
                self.registry.discover(package)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The listeners that are declared."""
        return tuple(self._roster)

    def observe(self, observer: Observer) -> None:
        """Tell ``observer`` what happens in this service, from now on."""
        self._observers.add(observer)

    def unobserve(self, observer: Observer) -> None:
        """Stop telling ``observer``."""
        self._observers.remove(observer)
