"""What more worker processes bring: ``python -m bench.workers``.

Stored events, each 200 microseconds of work, handled by ``eventbus run --workers N``; in turns, each
with a nats-server of its own. Printed are medians of the events a second. See bench/README.md.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import nats
from nats.errors import Error as NatsError
from nats.js.client import JetStreamContext

from bench.contestants.ours import MAX_BYTES, OrderPlaced, event_of
from eventbus import EventService, Settings
from eventbus.embedded import NatsServer

WORK = float(os.environ.get("BENCH_WORK_US", "200")) / 1e6
DURABLE = "bench__work"
BEGIN, END = 0.2, 0.95
"""The part of the events between which it is timed: all processes work, and none has run out."""
PATIENCE = 300.0

events = EventService("bench")


@events.subscribe(OrderPlaced, start="all", concurrency=64)
async def work(_: OrderPlaced) -> None:
    """Take the time of a processor, as real listeners do."""
    until = time.process_time() + WORK
    while time.process_time() < until:
        pass


async def fill(url: str, count: int) -> None:
    """Store events."""
    service = EventService("emitter", settings=Settings(nats_url=url, max_bytes=MAX_BYTES))
    async with service:
        for first in range(0, count, 5_000):
            numbers = range(first, min(count, first + 5_000))
            await service.emit_many([event_of(number) for number in numbers])


async def rate(url: str, count: int) -> float:
    """Return the events a second that are acknowledged, in the part that is timed."""
    client = await nats.connect(url)
    stream = client.jetstream()
    seen: list[tuple[float, int]] = []
    async with asyncio.timeout(PATIENCE):
        while not seen or seen[-1][1] < count * END:
            await asyncio.sleep(0.05)
            seen.append((time.monotonic(), await _handled(stream, count)))
    await client.close()
    timed = [one for one in seen if one[1] >= count * BEGIN]
    (began, first), (ended, last) = timed[0], timed[-1]
    return (last - first) / (ended - began)


async def _handled(stream: JetStreamContext, count: int) -> int:
    try:
        info = await stream.consumer_info("EVENTS", DURABLE)
    except NatsError:
        return 0  # the workers are starting
    return count - (info.num_pending or 0) - (info.num_ack_pending or 0)


@contextmanager
def running(url: str, workers: int) -> Iterator[None]:
    """Run the service with so many workers."""
    command = [sys.executable, "-m", "eventbus.cli", "run", "bench.workers:events"]
    command += ["--workers", str(workers)]
    environment = {**os.environ, "NATS_URL": url, "EVENTBUS_MAX_BYTES": str(MAX_BYTES)}
    environment["EVENTBUS_LOG_LEVEL"] = "warning"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def measure(workers: int, count: int) -> float:
    """Return the events a second of so many workers."""
    with NatsServer() as server:
        asyncio.run(fill(server.url, count))
        with running(server.url, workers):
            return asyncio.run(rate(server.url, count))


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workers", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    found: dict[int, list[float]] = {workers: [] for workers in asked.workers}
    for _ in range(asked.rounds):
        for workers, rates in found.items():
            rates.append(measure(workers, asked.events))
    one = median(found[asked.workers[0]])
    for workers, rates in found.items():
        each = median(rates)
        print(f"--workers {workers}  {each:8.0f} events/s  x{each / one:.2f}", flush=True)


if __name__ == "__main__":
    main()
