"""`Connection`: a driver as a service uses it under a name, and how listeners are worked there."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

from eventbus.configuration import DriverConfig
from eventbus.drivers.base import Driver
from eventbus.emission import Route
from eventbus.errors import UnknownEventError, UnsupportedError
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.subject import is_pattern
from eventbus.subscription import Subscription

if TYPE_CHECKING:  # slow to import, and whoever has settings has loaded it
    from eventbus.settings import Settings

__all__ = ("Connection", "connection_of")


@dataclass(frozen=True, slots=True)
class Connection:
    """A driver as a service uses it under a name."""

    name: str
    driver: Driver
    settings: "Settings"
    config: DriverConfig

    @property
    def route(self) -> Route:
        """How an emit goes through it."""
        return Route(self.driver, self.settings.subjects, self.config.run_after)

    @property
    def retry(self) -> Retry:
        """The policy of its listeners that declare none."""
        settings = self.settings
        attempts = self.config.attempts or settings.retry_attempts
        return Retry(attempts=attempts, start=settings.retry_delay)

    def check(self) -> None:
        """Check what its configuration asks for.

        Raises:
            UnsupportedError: Its driver can't do that.
        """
        config, features = self.config, self.driver.features
        for wanted, feature, has in (
            (config.run_after, "run_after", features.schedules),
            ((config.attempts or 1) > 1, "attempts", features.stores),
            (config.failed_queue, "failed_queue", features.stores),
        ):
            if wanted and not has:
                raise UnsupportedError(
                    driver=self.driver.name,
                    feature=f"{feature}=, which connection '{self.name}' asks for",
                    remedy=f"drop {feature}=, or use the driver 'jetstream' or 'memory'",
                )

    def place(self, one: Subscription) -> Subscription:
        """Return a listener as it is worked here.

        Raises:
            UnsupportedError: It asks for what the driver can't do.
        """
        self._check_order(one)
        self._check_delay(one)
        retry = one.retry
        if self.config.run_once:
            retry = replace(retry or self.retry, attempts=1)
        own, given = one.mode != "work", self.settings.instance or ""
        instance = given if one.mode == "fanout" else ""
        return replace(
            one,
            queue=one.queue or self.config.queue,
            retry=retry,
            instance=instance or (uuid4().hex[:12] if own else ""),
            ends=own and not instance,
        )

    def _check_order(self, one: Subscription) -> None:
        if one.ordered and not self.driver.features.ordered:
            raise UnsupportedError(
                driver=self.driver.name,
                feature=f"order by key, which listener '{one.listener}' asks for",
                remedy="drop ordered=True, or use the driver 'jetstream' or 'memory'",
            )

    def _check_delay(self, one: Subscription) -> None:
        if one.delay is not None and not self.driver.features.stores:
            raise UnsupportedError(
                driver=self.driver.name,
                feature=f"delays, which listener '{one.listener}' asks for",
                remedy="drop delay=, or use the driver 'memory' or 'jetstream'",
            )


def connection_of(one: Subscription, registry: Registry) -> str | None:
    """Return the connection that a listener, else its events, name; None for the default one."""
    if one.connection is not None:
        return one.connection
    names = {_driver_of(event, registry) for event in one.events}
    return names.pop() if len(names) == 1 else None


def _driver_of(event: str, registry: Registry) -> str | None:
    if is_pattern(event):
        return None
    try:
        spec = registry.resolve(event).event_spec
    except UnknownEventError:
        return None
    return None if spec is None else spec.driver
