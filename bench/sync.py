"""What the ``sync`` driver adds to a call of its one listener: ``python -m bench.sync``.

Microseconds of processor time for an event, beside an awaited function that gets a validated
pydantic model; in turns, in one process. See bench/README.md.
"""

import argparse
import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from statistics import median

from bench.contestants import plain
from bench.load import payload
from eventbus import Event, EventService, Settings
from eventbus.telemetry.metrics import Metrics

Run = Callable[[int], Awaitable[None]]
"""Does it for so many events."""


class OrderPlaced(Event, name="order.placed", version=1, key="order_id"):
    """The payload, of values that nobody can change, so that the listener gets the very event."""

    order_id: str
    customer_id: str
    email: str
    amount: float
    currency: str
    items: tuple[str, ...]
    express: bool
    address: str
    note: str | None
    at_ns: int


async def _take(_: object) -> None:
    """Be the listener."""


async def call(events: int) -> None:
    """Validate each event and await the function with it."""
    for number in range(events):
        await _take(plain.OrderPlaced.model_validate(payload(number)))


def service_of(*, watched: bool) -> EventService:
    """Return a service with one listener."""
    events = EventService(
        "bench",
        settings=Settings(
            driver="sync", tracing="off", namespace="watched" if watched else "unwatched"
        ),
    )
    if watched:
        events.observe(Metrics(lambda name: name in events.registry))
    events.subscribe(OrderPlaced, _take)
    return events


def emits(service: EventService) -> Run:
    """Return what emits validated events through it."""

    async def run(events: int) -> None:
        for number in range(events):
            await service.emit(OrderPlaced.model_validate(payload(number)))

    return run


async def timed(run: Run, events: int) -> float:
    """Return the microseconds of processor time that an event takes."""
    gc.collect()
    began = time.process_time()
    await run(events)
    return (time.process_time() - began) / events * 1e6


async def measure(events: int, rounds: int) -> dict[str, float]:
    """Return the medians of all, which take turns."""
    watched, unwatched = service_of(watched=True), service_of(watched=False)
    async with watched, unwatched:
        runs = {"call": call, "sync": emits(watched), "unwatched": emits(unwatched)}
        found: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                found[name].append(await timed(run, events))
    return {name: median(figures) for name, figures in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    gc.freeze()
    found = asyncio.run(measure(asked.events, asked.rounds))
    called = found["call"]
    print(f"awaited call of a validated model    {called:6.2f} us")
    for name, text in (("sync", "metrics on"), ("unwatched", "without observers")):
        print(f"sync, {text:30} {found[name]:6.2f} us  {found[name] - called:+6.2f} us")


if __name__ == "__main__":
    main()
