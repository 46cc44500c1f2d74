"""Choose a driver by the name that settings give it."""

from typing import TYPE_CHECKING

from eventbus.drivers.base import Driver
from eventbus.drivers.sync import SyncDriver, shared_hub
from eventbus.errors import SettingsError, did_you_mean

if TYPE_CHECKING:  # slow to import, and whoever has settings has loaded it
    from eventbus.settings import Settings

__all__ = ("driver_of",)

_NAMES = {"jetstream": "jetstream", "queue": "jetstream", "sync": "sync"}
"""What each may be called."""


def driver_of(settings: "Settings", service: str) -> Driver:
    """Return the driver that the settings name, not connected.

    Raises:
        SettingsError: There is none of that name.
    """
    if settings.driver not in _NAMES:
        known, hint = ", ".join(_NAMES), did_you_mean(settings.driver, _NAMES)
        raise SettingsError(f"no driver is called '{settings.driver}' (known: {known}){hint}")
    if settings.driver == "sync":
        return SyncDriver(shared_hub(settings.namespace), namespace=settings.namespace)
    from eventbus.drivers.jetstream.driver import JetStreamDriver

    return JetStreamDriver(settings, service=service)
