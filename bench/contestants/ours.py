"""Ours, through its public API: all headers, ids and correlation, metrics on, tracing off."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

from bench.load import Case, Meter, Result, in_flight, payload
from eventbus import Event, EventService, Settings
from eventbus.telemetry.metrics import Metrics

__all__ = ("CASES", "Make", "OrderPlaced", "consume", "emit", "event_of", "service_of")

MAX_BYTES = 4 * 1024**3


class OrderPlaced(Event, name="order.placed", version=1, key="order_id"):
    """The payload."""

    order_id: str
    customer_id: str
    email: str
    amount: float
    currency: str
    items: list[str]
    express: bool
    address: str
    note: str | None
    at_ns: int


def service_of(url: str) -> EventService:
    """Return a service with everything on that a service usually has on."""
    settings = Settings(nats_url=url, max_bytes=MAX_BYTES, tracing="off")
    events = EventService("bench", settings=settings)
    events.observe(Metrics(lambda name: name in events.registry))
    events.registry.register(OrderPlaced)
    return events


Make: TypeAlias = Callable[[str], EventService]
"""Makes the service of a run, by the server's URL."""


def event_of(number: int) -> OrderPlaced:
    """Return the event of a number, validated from its fields."""
    fields = payload(number)
    fields["at_ns"] = time.monotonic_ns()
    return OrderPlaced.model_validate(fields)


async def emit(url: str, events: int, width: int, make: Make = service_of) -> Result:
    """Emit with ``width`` in flight."""
    latencies: list[float] = []
    async with make(url) as service:

        async def one(number: int) -> None:
            began = time.perf_counter()
            await service.emit(event_of(number))
            latencies.append((time.perf_counter() - began) * 1e6)

        await in_flight(one, min(1000, events), width)
        latencies.clear()
        with Meter() as meter:
            await in_flight(one, events, width)
    return meter.result(events, tuple(latencies))


async def emit_many(url: str, events: int) -> Result:
    """Emit all with one call, which asks for the next events as those before go."""
    async with service_of(url) as service:
        await service.emit_many(event_of(number) for number in range(min(1000, events)))
        with Meter() as meter:
            await service.emit_many(event_of(number) for number in range(events))
    return meter.result(events)


async def consume(url: str, events: int, make: Make = service_of) -> Result:
    """Handle stored events with an async typed listener; each is acknowledged.

    As the others', the connection stands before. The durable is made, and all acknowledgements
    are confirmed, within the time.
    """
    async with make(url) as service:
        for first in range(0, events, 10_000):
            numbers = range(first, min(events, first + 10_000))
            await service.emit_many([event_of(number) for number in numbers])
    handled, done = 0, asyncio.Event()

    async def take(_: OrderPlaced) -> None:
        nonlocal handled
        handled += 1
        if handled == events:
            done.set()

    service = make(url)
    await service.start()
    with Meter() as meter:
        await service.subscribe(OrderPlaced, take, start="all", concurrency=500)
        await done.wait()
        await service.stop()
    return meter.result(events)


async def latency(url: str, events: int) -> Result:
    """Emit 500 a second and handle them in the same process: from emit to handled."""
    late: list[float] = []
    done = asyncio.Event()

    async def take(event: OrderPlaced) -> None:
        late.append((time.monotonic_ns() - event.at_ns) / 1e3)
        if len(late) == events:
            done.set()

    service = service_of(url)
    service.subscribe(OrderPlaced, take)
    async with service:
        with Meter() as meter:
            begun = time.monotonic()
            for number in range(events):
                await asyncio.sleep(max(0.0, begun + number / 500 - time.monotonic()))
                await service.emit(event_of(number))
            await done.wait()
    return meter.result(events, tuple(late))


CASES: dict[str, Case] = {
    "emit_256": lambda url, events: emit(url, events, 256),
    "emit_1": lambda url, events: emit(url, events, 1),
    "emit_many": emit_many,
    "consume": consume,
    "latency": latency,
}
