"""100,000 delayed events wait on the server: do they slow emits, do all come, and how late?

``python -m bench.schedules [--waiting 100000] [--good 5000] [--over 60]`` starts a nats-server,
measures plain events alone, then beside those that wait, and then how late each of these comes,
while all of them fall due within ``--over`` seconds. Before, it measures single ones, far apart.
It exits 1 where one is lost or comes twice.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from eventbus import Event, EventService, Settings
from eventbus.clock import SystemClock
from eventbus.embedded import NatsServer

AT_ONCE = 500
SINGLE = 20
CLOCK = SystemClock()


class ReadingTaken(Event, name="reading.taken"):
    """A small event."""

    number: int
    at: float


class ReminderDue(Event, name="reminder.due"):
    """An event that waits until a time, in seconds since 1970."""

    number: int
    due: float


@dataclass
class Listener:
    """What came so far, and how late."""

    late: list[float] = field(default_factory=list)
    reminders: Counter[int] = field(default_factory=Counter)
    reminders_late: list[float] = field(default_factory=list)

    async def take(self, event: ReadingTaken) -> None:
        """Handle a plain event."""
        self.late.append(time.monotonic() - event.at)

    async def remind(self, event: ReminderDue) -> None:
        """Handle a delayed one."""
        self.reminders[event.number] += 1
        self.reminders_late.append(CLOCK.now().timestamp() - event.due)


async def run(url: str, waiting: int, good: int, over: float) -> dict[str, object]:
    """Return what was measured."""
    listener = Listener()
    events = EventService("bench", settings=Settings(nats_url=url))
    events.subscribe(ReadingTaken, concurrency=64)(listener.take)
    events.subscribe(ReminderDue, concurrency=256)(listener.remind)
    async with events:
        await _measure(events, listener, good)
        alone = await _measure(events, listener, good)
        single = await _single(events, listener)
        began = time.monotonic()
        # Late enough that all wait, and that the plain events are measured, before the first.
        start = CLOCK.now().timestamp() + 30 + waiting / 1500 + good / 500
        await _delay(events, waiting, start, over)
        delaying = time.monotonic() - began
        beside = await _measure(events, listener, good)
        in_time = CLOCK.now().timestamp() < start
        left = start + over + 120 - CLOCK.now().timestamp()
        await _until(lambda: len(listener.reminders) == waiting, left)
        await asyncio.sleep(2)  # what comes twice comes by then
    return {
        "waiting": waiting,
        "delayed_per_second": round(waiting / delaying),
        "alone": alone,
        "beside": beside,
        "all_waited_meanwhile": in_time,
        "came": len(listener.reminders),
        "came_twice": sum(one > 1 for one in listener.reminders.values()),
        "single_late": single,
        "due_per_second": round(waiting / over),
        "late": _percentiles(listener.reminders_late),
    }


async def _single(events: EventService, listener: Listener) -> dict[str, float]:
    """Return how late events are that wait one at a time."""
    for number in range(SINGLE):
        due = CLOCK.now() + timedelta(seconds=0.3)
        await events.emit(ReminderDue(number=-1 - number, due=due.timestamp()), at=due)
        await _until(lambda: len(listener.reminders) > number, 10)  # noqa: B023 - awaited here
    late = _percentiles(listener.reminders_late)
    listener.reminders.clear()
    listener.reminders_late.clear()
    return late


async def _delay(events: EventService, count: int, start: float, over: float) -> None:
    for first in range(0, count, AT_ONCE):
        async with asyncio.TaskGroup() as group:
            for number in range(first, min(count, first + AT_ONCE)):
                due = start + over * number / count
                group.create_task(_remind(events, number, due))


async def _remind(events: EventService, number: int, due: float) -> None:
    at = datetime.fromtimestamp(due, UTC)
    await events.emit(ReminderDue(number=number, due=due), at=at)


async def _measure(events: EventService, listener: Listener, good: int) -> dict[str, float]:
    listener.late.clear()
    began = time.monotonic()
    for first in range(0, good, AT_ONCE):
        at = time.monotonic()
        numbers = range(first, min(good, first + AT_ONCE))
        await events.emit_many([ReadingTaken(number=one, at=at) for one in numbers])
    emitted = time.monotonic() - began
    await _until(lambda: len(listener.late) == good, 60)
    return {"emits_per_second": round(good / emitted), **_percentiles(listener.late)}


def _percentiles(late: Sequence[float]) -> dict[str, float]:
    ordered = sorted(late) or [0.0]
    places = {"p50_ms": 50, "p99_ms": 99, "max_ms": 100}
    return {
        name: round(ordered[min(len(ordered) - 1, len(ordered) * place // 100)] * 1000, 1)
        for name, place in places.items()
    }


async def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - a measure
        await asyncio.sleep(0.02)


def main() -> int:
    """Run it with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--good", type=int, default=5_000)
    parser.add_argument("--over", type=float, default=60.0)
    asked = parser.parse_args()
    with NatsServer() as server:
        measured = asyncio.run(run(server.url, asked.waiting, asked.good, asked.over))
    print(json.dumps(measured, indent=2))
    return 0 if measured["came"] == asked.waiting and not measured["came_twice"] else 1


if __name__ == "__main__":
    sys.exit(main())
