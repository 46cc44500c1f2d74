"""Events in this process, with the semantics of the real broker, moved by a `Clock` alone."""

from eventbus.drivers.memory.broker import MemoryBroker, Sizes
from eventbus.drivers.memory.driver import MemoryDriver

__all__ = ("MemoryBroker", "MemoryDriver", "Sizes")
