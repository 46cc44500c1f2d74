"""A steady load through two processes: is anything lost, how late is it, does memory grow?

``python -m bench.steady [--rate 500] [--seconds 60]`` starts a nats-server, a listening process
and an emitting one, and prints what they saw. It exits 1 where an event was lost.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from eventbus import Event, EventService, Settings
from eventbus.embedded import NatsServer

WARM_UP = 10.0
"""Seconds after which memory is measured for the first time."""


class ReadingTaken(Event, name="reading.taken", key="sensor"):
    """A small event with the time it was emitted, on the clock that processes share."""

    sensor: str
    number: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for."""

    url: str
    rate: float
    seconds: float

    @property
    def events(self) -> int:
        """How many events that makes."""
        return round(self.rate * self.seconds)


def rss_mb() -> float:
    """Return the resident memory of this process in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def listen(load: Load) -> dict[str, object]:
    """Handle until every event was seen, or none came for 10 s."""
    events = EventService("listening", settings=Settings(nats_url=load.url))
    late: list[int] = []
    seen: set[int] = set()
    last = time.monotonic()
    all_seen = asyncio.Event()

    async def take(event: ReadingTaken) -> None:
        nonlocal last
        last = time.monotonic()
        late.append(time.monotonic_ns() - event.at_ns)
        seen.add(event.number)
        if len(seen) == load.events:
            all_seen.set()

    events.subscribe(ReadingTaken, take)
    async with events:
        print("ready", flush=True)
        warm = await _memory_after_warm_up()
        while not all_seen.is_set() and time.monotonic() - last < 10:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await all_seen.wait()
        grown = rss_mb() - warm
    late.sort()
    return {
        "handled": len(seen),
        "deliveries": len(late),
        "p50_ms": late[len(late) // 2] / 1e6 if late else None,
        "p99_ms": late[len(late) * 99 // 100] / 1e6 if late else None,
        "max_ms": late[-1] / 1e6 if late else None,
        "rss_growth_mb": grown,
    }


async def emit(load: Load) -> dict[str, object]:
    """Emit at an even rate; an emit that is late is not skipped."""
    events = EventService("emitting", settings=Settings(nats_url=load.url))
    async with events, asyncio.TaskGroup() as group:
        memory = group.create_task(_memory_after_warm_up())
        begun = time.monotonic()
        for number in range(load.events):
            await asyncio.sleep(max(0.0, begun + number / load.rate - time.monotonic()))
            event = ReadingTaken(
                sensor=f"s-{number % 100}", number=number, at_ns=time.monotonic_ns()
            )
            group.create_task(events.emit(event))
        warm = await memory
    return {"emitted": load.events, "rss_growth_mb": rss_mb() - warm}


async def _memory_after_warm_up() -> float:
    await asyncio.sleep(WARM_UP)
    return rss_mb()


def main() -> int:
    """Run the role that the arguments name; without one, both and the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--role", choices=("both", "listen", "emit"), default="both")
    parser.add_argument("--url", default="")
    asked = parser.parse_args()
    load = Load(asked.url, asked.rate, asked.seconds)
    if asked.role != "both":
        print(json.dumps(asyncio.run((listen if asked.role == "listen" else emit)(load))))
        return 0
    with NatsServer() as server:
        return _both(Load(server.url, asked.rate, asked.seconds))


def _both(load: Load) -> int:
    print(f"{load.rate:g} events/s for {load.seconds:g} s through two processes ...", flush=True)
    listening = _spawn("listen", load)
    assert listening.stdout is not None, "no pipe to the listening process"
    listening.stdout.readline()
    emitting = _spawn("emit", load)
    emitted = json.loads(emitting.communicate()[0])
    handled = json.loads(listening.communicate()[0])
    print(json.dumps({"emit": emitted, "listen": handled}, indent=2))
    lost = load.events - handled["handled"]
    print(f"lost: {lost}   p99: {handled['p99_ms']:.2f} ms")
    return 1 if lost else 0


def _spawn(role: str, load: Load) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.steady", "--role", role, "--url", load.url]
    command += ["--rate", str(load.rate), "--seconds", str(load.seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves


if __name__ == "__main__":
    sys.exit(main())
