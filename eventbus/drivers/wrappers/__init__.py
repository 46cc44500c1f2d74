"""Drivers around a driver; they compose, the outermost is asked first."""

from eventbus.drivers.wrappers.debug import Debug
from eventbus.drivers.wrappers.fallback import Fallback
from eventbus.drivers.wrappers.limited import Limited
from eventbus.drivers.wrappers.monitored import Monitored, Monitoring
from eventbus.drivers.wrappers.retrying import Retrying
from eventbus.drivers.wrappers.timeout import Timeout
from eventbus.drivers.wrappers.wrapper import Wrapper

__all__ = (
    "Debug",
    "Fallback",
    "Limited",
    "Monitored",
    "Monitoring",
    "Retrying",
    "Timeout",
    "Wrapper",
)
