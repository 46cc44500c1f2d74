"""Choose a driver by the name that settings give it."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, cast

from eventbus.clock import Clock, SystemClock
from eventbus.drivers.base import Driver
from eventbus.errors import SettingsError, did_you_mean

if TYPE_CHECKING:  # slow to import, and whoever has settings has loaded it
    from eventbus.settings import Settings

__all__ = ("DRIVERS", "MakeDriver", "driver_of", "known_drivers")

GROUP = "eventbus.drivers"


def _jetstream(settings: "Settings", service: str, _clock: Clock) -> Driver:
    from eventbus.drivers.jetstream.driver import JetStreamDriver

    return JetStreamDriver(settings, service=service)


def _memory(settings: "Settings", _service: str, clock: Clock) -> Driver:
    from eventbus.drivers.memory.broker import Sizes
    from eventbus.drivers.memory.driver import MemoryDriver
    from eventbus.drivers.memory.shared import shared_broker

    sizes = Sizes(
        max_bytes=settings.max_bytes,
        later_max_bytes=settings.later_max_bytes,
        max_age=settings.max_age,
        duplicate_window=settings.duplicate_window,
    )
    return MemoryDriver(shared_broker(settings.namespace, sizes, clock))


def _sync(settings: "Settings", _service: str, clock: Clock) -> Driver:
    from eventbus.drivers.sync import SyncDriver, shared_hub

    return SyncDriver(shared_hub(settings.namespace, clock), namespace=settings.namespace)


MakeDriver: TypeAlias = Callable[["Settings", str, Clock], Driver]
"""What an entry point names: it makes a driver for a service, without connecting it."""
DRIVERS: Mapping[str, MakeDriver] = MappingProxyType(
    {"jetstream": _jetstream, "queue": _jetstream, "memory": _memory, "sync": _sync}
)
"""What makes each driver, by the names that it may be called."""


def driver_of(settings: "Settings", service: str, *, clock: Clock | None = None) -> Driver:
    """Return the driver that the settings name, not connected; call it on the event loop.

    `memory` and `sync` are shared by the services of one event loop and one namespace. A name
    that isn't ours is looked up among the entry points of the group ``eventbus.drivers``.

    Raises:
        SettingsError: There is none of that name.
    """
    make = DRIVERS.get(settings.driver) or _installed(settings.driver)
    return make(settings, service, clock or SystemClock())


def known_drivers() -> tuple[str, ...]:
    """Return every name that a driver may be called by."""
    return (*DRIVERS, *sorted(one.name for one in entry_points(group=GROUP)))


def _installed(name: str) -> MakeDriver:
    for one in entry_points(group=GROUP, name=name):
        return cast("MakeDriver", one.load())
    known, hint = ", ".join(known_drivers()), did_you_mean(name, known_drivers())
    raise SettingsError(f"no driver is called '{name}' (known: {known}){hint}")
