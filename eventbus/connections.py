"""`Connections`: the drivers of one service; what works each listener, and where emits may go."""

from collections.abc import Callable, Mapping

from eventbus.dispatch import Wiring
from eventbus.drivers.base import Driver, Immediate, is_immediate
from eventbus.drivers.sync import SyncDriver
from eventbus.errors import UnknownEventError, UnsupportedError
from eventbus.immediate import ImmediateListener
from eventbus.registry import Registry
from eventbus.subject import is_pattern
from eventbus.subscription import Subscription

__all__ = ("Connections",)

QUEUE = "queue"
"""The name of whatever driver a service keeps its events in."""


class Connections:
    """The service's driver, and beside it one that runs its own listeners at once.

    Every listener hears what is emitted through `sync`. One whose events all name that driver
    hears nothing else, and needs no durable.
    """

    def __init__(self, driver: Driver, namespace: str) -> None:
        self.driver = driver
        """Where neither an emit nor an event names one."""
        self._local: Immediate = SyncDriver(namespace=namespace)
        if is_immediate(driver):
            self._local = driver
        self._attached: list[Callable[[], None]] = []

    @property
    def named(self) -> Mapping[str, Driver]:
        """The drivers by the names that an emit or an event may give."""
        named: dict[str, Driver] = {self._local.name: self._local}
        if self.driver.features.stores:
            named[QUEUE] = self.driver
        return {self.driver.name: self.driver, **named}

    def add(self, one: Subscription, wiring: Wiring) -> bool:
        """Let a listener hear what is emitted at once; return whether a worker works it too.

        Raises:
            UnsupportedError: It asks for what its driver can't do.
        """
        self._check(one)
        self._attached.append(self._local.attach(one.consumer(), ImmediateListener(one, wiring)))
        if self.driver is self._local:
            return False
        return not _all_immediate(one, wiring.registry, self._local.name)

    def _check(self, one: Subscription) -> None:
        if one.ordered and not self.driver.features.ordered:
            raise UnsupportedError(
                driver=self.driver.name,
                feature=f"order by key, which listener '{one.listener}' asks for",
                remedy="drop ordered=True, or use the driver 'jetstream'",
            )
        if one.delay is not None and not self.driver.features.stores:
            raise UnsupportedError(
                driver=self.driver.name,
                feature=f"delays, which listener '{one.listener}' asks for",
                remedy="drop delay=, or use the driver 'memory' or 'jetstream'",
            )

    def end(self) -> None:
        """Let nobody hear anything more that is emitted at once."""
        while self._attached:
            self._attached.pop()()


def _all_immediate(one: Subscription, registry: Registry, name: str) -> bool:
    """Tell whether all events that a listener names go through the driver that runs it at once."""
    return all(_driver_of(event, registry) == name for event in one.events)


def _driver_of(event: str, registry: Registry) -> str | None:
    if is_pattern(event):
        return None
    try:
        spec = registry.resolve(event).event_spec
    except UnknownEventError:
        return None
    return None if spec is None else spec.driver
