"""Events through one process, each with a key of its own: does its memory grow with them?

``python -m bench.memory [--events 1000000]`` emits and handles them, and prints the resident
memory at each tenth. It exits 1 where the second half brought more than 32 bytes an event.
"""

import argparse
import asyncio
import gc
import sys

from bench.contestants.ours import OrderPlaced, event_of, service_of
from bench.steady import rss_mb
from eventbus.embedded import NatsServer

BLOCK = 5_000
ALLOWED = 32.0
"""Bytes an event; far below what anything kept for each would take."""


async def run(url: str, events: int) -> list[float]:
    """Emit and handle so many events, and return the memory in MB at each tenth."""
    measured: list[float] = []
    handled, wanted, reached = 0, 0, asyncio.Event()

    async def take(_: OrderPlaced) -> None:
        nonlocal handled
        handled += 1
        if handled == wanted:
            reached.set()

    service = service_of(url)
    service.subscribe(OrderPlaced, take, concurrency=256)
    async with service:
        for tenth in range(10):
            end = events * (tenth + 1) // 10
            for first in range(events * tenth // 10, end, BLOCK):
                wanted = min(end, first + BLOCK)
                reached.clear()
                await service.emit_many([event_of(number) for number in range(first, wanted)])
                async with asyncio.timeout(120):
                    await reached.wait()
            gc.collect()
            measured.append(rss_mb())
            print(f"{end:9} events  {measured[-1]:7.1f} MB", flush=True)
    return measured


def main() -> int:
    """Run it, and judge the second half: the first one warms up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    asked = parser.parse_args()
    with NatsServer() as server:
        measured = asyncio.run(run(server.url, asked.events))
    # The highest of each: an allocator that gives back a block for a while would look like growth.
    slope = (max(measured[5:]) - max(measured[:5])) * 1024**2 / (asked.events / 2)
    print(f"second half: {slope:.1f} bytes an event")
    return 1 if slope > ALLOWED else 0


if __name__ == "__main__":
    sys.exit(main())
