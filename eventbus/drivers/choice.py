"""Choose a driver by the name that settings give it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from eventbus.clock import Clock, SystemClock
from eventbus.drivers.base import Driver
from eventbus.errors import SettingsError, did_you_mean

if TYPE_CHECKING:  # slow to import, and whoever has settings has loaded it
    from eventbus.settings import Settings

__all__ = ("DRIVERS", "driver_of")


def _jetstream(settings: "Settings", service: str, _clock: Clock) -> Driver:
    from eventbus.drivers.jetstream.driver import JetStreamDriver

    return JetStreamDriver(settings, service=service)


def _memory(settings: "Settings", _service: str, clock: Clock) -> Driver:
    from eventbus.drivers.memory.broker import Sizes, shared_broker
    from eventbus.drivers.memory.driver import MemoryDriver

    sizes = Sizes(
        max_bytes=settings.max_bytes,
        later_max_bytes=settings.later_max_bytes,
        max_age=settings.max_age,
        duplicate_window=settings.duplicate_window,
    )
    return MemoryDriver(shared_broker(settings.namespace, sizes, clock))


def _sync(settings: "Settings", _service: str, _clock: Clock) -> Driver:
    from eventbus.drivers.sync import SyncDriver, shared_hub

    return SyncDriver(shared_hub(settings.namespace), namespace=settings.namespace)


DRIVERS: Mapping[str, Callable[["Settings", str, Clock], Driver]] = MappingProxyType(
    {"jetstream": _jetstream, "queue": _jetstream, "memory": _memory, "sync": _sync}
)
"""What makes each driver, by the names that it may be called."""


def driver_of(settings: "Settings", service: str, *, clock: Clock | None = None) -> Driver:
    """Return the driver that the settings name, not connected; call it on the event loop.

    `memory` and `sync` are shared by the services of one event loop and one namespace.

    Raises:
        SettingsError: There is none of that name.
    """
    make = DRIVERS.get(settings.driver)
    if make is None:
        known, hint = ", ".join(DRIVERS), did_you_mean(settings.driver, DRIVERS)
        raise SettingsError(f"no driver is called '{settings.driver}' (known: {known}){hint}")
    return make(settings, service, clock or SystemClock())
