"""`shared_broker`: the one broker that services of a process meet at, unless they bring their own."""

import asyncio
from typing import TypeAlias
from weakref import WeakKeyDictionary

from eventbus.clock import Clock, SystemClock
from eventbus.drivers.memory.broker import MemoryBroker, Sizes

__all__ = ("shared_broker",)

_Brokers: TypeAlias = dict[tuple[str, Clock | None], MemoryBroker]
_shared: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Brokers]" = WeakKeyDictionary()


def shared_broker(namespace: str, sizes: Sizes, clock: Clock) -> MemoryBroker:
    """Return the broker of all services on the running event loop, by namespace and clock.

    The sizes are those of whoever asks first.
    """
    brokers = _shared.setdefault(asyncio.get_running_loop(), {})
    moved = None if isinstance(clock, SystemClock) else clock
    if (namespace, moved) not in brokers:
        brokers[namespace, moved] = MemoryBroker(clock, namespace=namespace, sizes=sizes)
    return brokers[namespace, moved]
