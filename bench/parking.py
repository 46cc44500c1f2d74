"""100,000 events parked behind a dependency that is down: how late are the events that aren't?

``python -m bench.parking [--parked 100000] [--good 5000]`` starts a nats-server, measures events
that can be handled alone, then beside the parked ones, and then counts that every parked one
comes back. It exits 1 where one is lost.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from eventbus import Context, Event, EventService, Retry, Settings
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.telemetry.signals import Happened, Settled

AT_ONCE = 500


class ReadingTaken(Event, name="reading.taken"):
    """A small event, which can be handled or can't yet."""

    number: int
    can_wait: bool
    at: float


@dataclass
class Listener:
    """What came of the events so far."""

    late: list[float] = field(default_factory=list)
    parked: int = 0
    back: set[int] = field(default_factory=set)

    async def take(self, event: ReadingTaken, context: Context) -> None:
        """Handle an event; one that can wait fails the first time."""
        if not event.can_wait:
            self.late.append(time.monotonic() - event.at)
        elif context.attempt == 1:
            raise ConnectionError("the dependency is down")
        else:
            self.back.add(event.number)

    def observe(self, happened: Happened) -> None:
        """Count what is parked."""
        if isinstance(happened, Settled) and happened.outcome is Outcome.PARK:
            self.parked += 1


async def run(url: str, parked: int, good: int) -> dict[str, object]:
    """Return what was measured."""
    listener = Listener()
    settings = Settings(nats_url=url, park_after=1)
    events = EventService("bench", settings=settings, observers=[listener.observe])
    # Long enough that all are parked before the first comes back.
    wait = 30 + parked / 1500
    events.subscribe(
        ReadingTaken, listener.take, retry=Retry(attempts=2, delays=(wait,)), concurrency=64
    )
    async with events:
        await _measure(events, listener, good)
        alone = await _measure(events, listener, good)
        began = time.monotonic()
        await _emit(events, parked, can_wait=True)
        await _until(lambda: listener.parked == parked, wait)
        parking = time.monotonic() - began
        beside = await _measure(events, listener, good)
        await _until(lambda: len(listener.back) == parked, 3 * wait)
    return {
        "parked": listener.parked,
        "parked_per_second": round(parked / parking),
        "alone": alone,
        "beside": beside,
        "came_back": len(listener.back),
    }


async def _measure(events: EventService, listener: Listener, good: int) -> dict[str, float]:
    listener.late.clear()
    began = time.monotonic()
    await _emit(events, good, can_wait=False)
    await _until(lambda: len(listener.late) == good, 60)
    late = sorted(listener.late)
    return {
        "events_per_second": round(good / (time.monotonic() - began)),
        "p50_ms": round(late[good // 2] * 1000, 2),
        "p99_ms": round(late[good * 99 // 100] * 1000, 2),
    }


async def _emit(events: EventService, count: int, *, can_wait: bool) -> None:
    for first in range(0, count, AT_ONCE):
        numbers = range(first, min(count, first + AT_ONCE))
        at = time.monotonic()
        await events.emit_many(
            [ReadingTaken(number=one, can_wait=can_wait, at=at) for one in numbers]
        )


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - a measure
        await asyncio.sleep(0.02)


def main() -> int:
    """Run it with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parked", type=int, default=100_000)
    parser.add_argument("--good", type=int, default=5_000)
    asked = parser.parse_args()
    with NatsServer() as server:
        measured = asyncio.run(run(server.url, asked.parked, asked.good))
    print(json.dumps(measured, indent=2))
    return 0 if measured["came_back"] == asked.parked else 1


if __name__ == "__main__":
    sys.exit(main())
