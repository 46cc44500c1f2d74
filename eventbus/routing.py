"""The ways that an emit may go: each a driver, and the emit middleware around it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from eventbus.clock import Clock
from eventbus.correlation import Scope
from eventbus.drivers.base import Driver
from eventbus.drivers.pipelined import is_pipelined
from eventbus.envelope import Envelope
from eventbus.enveloping import due_of, enveloped
from eventbus.errors import DeclarationError, InvalidEventError, UnsupportedError, did_you_mean
from eventbus.event import Event
from eventbus.middleware.base import CallEmit, EmitMiddleware, EmitOptions
from eventbus.middleware.brackets import brackets_of
from eventbus.subject import Subjects
from eventbus.telemetry.signals import Observer
from eventbus.template import template_of

__all__ = ("Choose", "Publishing", "Route", "Way", "Ways")

Choose: TypeAlias = Callable[[Event], str]
"""Names the driver of an event that doesn't name one itself."""


@dataclass(frozen=True, slots=True)
class Route:
    """A way that an emit may go."""

    driver: Driver
    subjects: Subjects
    run_after: float = 0.0
    """Seconds after which the event is published."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """What the emits of one service go through."""

    driver: Driver
    """Where neither the emit nor the event names one."""
    subjects: Subjects
    source: str
    clock: Clock
    observe: Observer
    middleware: tuple[EmitMiddleware, ...]
    named: Mapping[str, Route] = field(default_factory=dict[str, Route])
    """The routes that may be named."""
    run_after: float = 0.0
    """As `Route.run_after`, for where none is named."""
    choose: Choose | None = None
    """Asked where neither the emit nor the event names a driver."""


@dataclass(frozen=True, slots=True)
class Way:
    """A driver, and the chain that ends in it."""

    route: Route
    publishing: Publishing
    chain: CallEmit
    later: CallEmit
    """The chain of what is delayed; the same where the driver stores events."""
    is_immediate: bool = False
    """Its driver runs listeners before the emit returns."""

    def enveloped(
        self, event: Event, options: EmitOptions, known: str | None, scope: Scope
    ) -> Envelope:
        """Return the envelope of an event that is emitted now; ``known`` is the id it had before.

        Raises:
            DeclarationError, EncodeError, HeaderError, InvalidEventError: It can't be emitted.
            TypeError, ValueError, UnsupportedError: As `due`, and `check_state`.
        """
        publishing, waits = self.publishing, self.route.run_after != 0
        now = publishing.clock.now()
        if not options and known is None and not waits and template_of(event).is_plain(event):
            return Envelope.plain(event, publishing.source, now, scope)
        due = self.due(options, now) if options or waits else None
        envelope = enveloped(
            event, options, source=publishing.source, now=now, due=due, id=known, scope=scope
        )
        if envelope.kind == "state":
            self.check_state(envelope)
        return envelope

    def along(self, envelope: Envelope) -> CallEmit:
        """Return the chain that an event goes through."""
        return self.chain if envelope.due is None else self.later

    @property
    def driver(self) -> Driver:
        """Where it ends."""
        return self.route.driver

    def due(self, options: EmitOptions, now: datetime) -> datetime | None:
        """Return when an event is to be published; None for at once.

        Raises:
            TypeError, ValueError: The options contradict each other, or what is given is no time.
            UnsupportedError: The driver has no schedules.
        """
        due = due_of(options.get("delay"), options.get("at"), now)
        if due is None and self.route.run_after:
            due = now + timedelta(seconds=self.route.run_after)
        if due is not None:
            _ = self.driver.schedules
        return due

    def check_state(self, envelope: Envelope) -> None:
        """Refuse a state where it isn't kept, and one that is delayed.

        Raises:
            UnsupportedError: The driver keeps no states.
            InvalidEventError: It is delayed.
        """
        if envelope.due is not None:
            problem = "a state says what is true now, and can't be delayed; use Event instead"
            raise InvalidEventError(name=envelope.name, problems=[("", problem)])
        if not self.driver.features.states:
            raise UnsupportedError(
                driver=self.driver.name,
                feature=f"keeping the last '{envelope.name}' of each key",
                remedy="emit it through 'jetstream' or 'memory'",
            )


class Ways:
    """All the ways of one service."""

    def __init__(self, publishing: Publishing, way_to: Callable[[Route], Way]) -> None:
        self._source = publishing.source
        self._choose = publishing.choose
        self.own = way_to(Route(publishing.driver, publishing.subjects, publishing.run_after))
        """Where neither the emit nor the event names a driver."""
        self._named = {name: way_to(one) for name, one in publishing.named.items()}
        self.brackets = brackets_of(publishing.middleware)
        """What an emit through the pipeline begins and ends within."""
        more = bool(publishing.middleware) and self.brackets is None
        plain = not (more or publishing.run_after or publishing.choose)
        driver = publishing.driver
        self.pipeline = driver if plain and is_pipelined(driver) else None
        """The driver of the own way, where it takes many events at once and nothing is between."""

    def choose(self, event: Event, options: EmitOptions) -> Way:
        """Return the way to the driver that the emit names, else the event, else the service's.

        Raises:
            DeclarationError: There is none of that name.
        """
        name = options.get("driver")
        if name is None:
            spec = None if template_of(event).goes_along(event) else event.event_spec
            name = None if spec is None else spec.driver
            if name is None and self._choose is not None:
                name = self._choose(event)
            if name is None:
                return self.own
        way = self._named.get(name)
        if way is None:
            known, hint = ", ".join(self._named), did_you_mean(name, self._named)
            raise DeclarationError(
                f"service '{self._source}' has no driver '{name}' (it has {known}){hint}"
            )
        return way
