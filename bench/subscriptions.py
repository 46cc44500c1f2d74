"""What an event costs with many listeners in a process, and what they cost while nothing happens.

``python -m bench.subscriptions`` runs each number of listeners in a process of its own.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time

from bench.contestants import ours
from bench.load import Meter
from eventbus.embedded import NatsServer

COUNTS = (1, 10, 100, 1_000)
SETTLING = 5.0
"""Seconds after the last event, before what idle listeners cost is measured."""
IDLE = 10.0


async def measure(url: str, listeners: int, deliveries: int, slots: int) -> dict[str, float]:
    """Return the figures of listeners of one event, which get each stored one."""
    each = deliveries // listeners
    async with ours.service_of(url) as service:
        await service.emit_many(ours.event_of(number) for number in range(each))
    handled, done = 0, asyncio.Event()

    async def take(_: ours.OrderPlaced) -> None:
        nonlocal handled
        handled += 1
        if handled == each * listeners:
            done.set()

    service = ours.service_of(url)
    for number in range(listeners):
        name = f"take_{number}"
        service.subscribe(ours.OrderPlaced, take, name=name, start="all", concurrency=slots)
    with Meter() as meter:
        await service.start()
        await done.wait()
    await asyncio.sleep(SETTLING)
    began = time.process_time()
    await asyncio.sleep(IDLE)
    idle = (time.process_time() - began) / IDLE
    await service.stop()
    return {**meter.result(each * listeners).figures(), "idle_percent": idle * 100}


def one(listeners: int, deliveries: int, slots: int) -> None:
    """Print the figures of one run."""
    with NatsServer() as server:
        print(json.dumps(asyncio.run(measure(server.url, listeners, deliveries, slots))))


def spawned(listeners: int, deliveries: int, slots: int) -> dict[str, float]:
    """Return the figures of one run in a process of its own."""
    command = [sys.executable, "-m", "bench.subscriptions", "--one", str(listeners)]
    command += ["--deliveries", str(deliveries), "--slots", str(slots)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - us
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=50_000)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=int, metavar="LISTENERS")
    asked = parser.parse_args()
    if asked.one is not None:
        one(asked.one, asked.deliveries, asked.slots)
        return
    rounds = [
        {count: spawned(count, asked.deliveries, asked.slots) for count in COUNTS}
        for _ in range(asked.rounds)
    ]
    print("listeners   us a handled event   of one listener's   idle, % of a processor")
    for count in COUNTS:
        cost = statistics.median(found[count]["cpu_us"] for found in rounds)
        ratio = statistics.median(
            found[count]["cpu_us"] / found[COUNTS[0]]["cpu_us"] for found in rounds
        )
        idle = statistics.median(found[count]["idle_percent"] for found in rounds)
        print(f"{count:9,}   {cost:18.1f}   {ratio:17.2f}   {idle:22.2f}")


if __name__ == "__main__":
    main()
