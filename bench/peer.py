"""What the frameworks from PyPI share: one model, one way to emit, one way to count and check."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import nats
from nats.js.api import StreamConfig

from bench.contestants.plain import OrderPlaced
from bench.load import STREAM, SUBJECT, Meter, Result, in_flight, payload

__all__ = ("Emit", "Handled", "OrderPlaced", "add_stream", "emitted", "fill", "order_of")

WIDTH = 256

Emit = Callable[[OrderPlaced], Awaitable[object]]
"""Emits one event and returns when the server has stored it."""


def order_of(number: int) -> OrderPlaced:
    """Return the event of a number, validated from its fields."""
    fields = payload(number)
    fields["at_ns"] = time.monotonic_ns()
    return OrderPlaced.model_validate(fields)


async def add_stream(url: str) -> None:
    """Make the stream, for a peer that expects one."""
    client = await nats.connect(url)
    await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=[SUBJECT]))
    await client.close()


async def emitted(emit: Emit, events: int, width: int) -> Result:
    """Warm up, emit with ``width`` in flight, and return what it took."""
    latencies: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        await emit(order_of(number))
        latencies.append((time.perf_counter() - began) * 1e6)

    await in_flight(one, min(1000, events), width)
    latencies.clear()
    with Meter() as meter:
        await in_flight(one, events, width)
    return meter.result(events, tuple(latencies))


async def fill(emit: Emit, events: int) -> None:
    """Store so many events to be handled."""
    await in_flight(lambda number: emit(order_of(number)), events, WIDTH)


@dataclass(slots=True)
class Handled:
    """Counts what a listener was given."""

    events: int
    count: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, event: OrderPlaced) -> None:
        """Count one; what isn't the model wasn't validated, and isn't what is measured."""
        assert isinstance(event, OrderPlaced), event
        self.count += 1
        if self.count == self.events:
            self.done.set()

    async def acknowledged(self, url: str) -> None:
        """Return when the server has the acks of all: a listener without them would be faster.

        Raises:
            TimeoutError: where some don't come.
        """
        client = await nats.connect(url)
        manager = client.jsm()
        async with asyncio.timeout(30):
            while await _unsettled(manager):  # noqa: ASYNC110 - the state of a server
                await asyncio.sleep(0.05)
        await client.close()


async def _unsettled(manager: nats.js.manager.JetStreamManager) -> int:
    names = [stream.config.name or "" for stream in await manager.streams_info()]
    found = [one for name in names for one in await manager.consumers_info(name)]
    assert found, "it was consumed through a consumer of the server"
    return sum((one.num_pending or 0) + (one.num_ack_pending or 0) for one in found)
