"""A long load with a random fault every ten seconds: is anything lost, does anything grow?

``python -m tests.faults.soak [--minutes 10] [--rate 300] [--seed N]`` starts a server, a process
that emits and two that listen, each behind a line that can break, and a bank, whose bookings have
to be committed, stored, and have their effect, each exactly once. It prints the seed, by which the
same faults come again, and exits 1 where an invariant didn't hold.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from eventbus.embedded import NatsServer
from tests.faults.harness.bank import Bank, in_order
from tests.faults.harness.history import Entry, What
from tests.faults.harness.proxy import Proxy
from tests.faults.harness.stage import Stage
from tests.faults.harness.worker import Worker

EVERY = 10.0
"""Seconds from the begin of a fault to that of the next one."""
WARM = 10.0
"""Seconds after which a process is measured for the first time."""
QUIET = 6.0
"""Seconds without load before it is measured for the last time."""
LIMITS = {"tasks": 5.0, "fds": 5.0, "rss": 25.0}
"""By how much each may have grown: tasks, file descriptors, megabytes."""
BOOKS_EVERY = 0.05
"""Seconds from one booking to the next."""
WAITING = 0.02
"""Megabytes for each task there was at once: CPython gives back little of what an outage took."""


Start = Callable[[], Awaitable[int]]


class Clerks:
    """A bank's processes, all but its writer: relays, and listeners with an inbox."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.processes: list[tuple[Start, int]] = []

    async def hire(self) -> int:
        """Start them, and the writer, whose number is returned."""
        for start in (self.bank.relay, self.bank.listener) * 2:
            self.processes.append((start, await start()))
        return await self.bank.writer(pause=BOOKS_EVERY)

    async def die(self, chance: random.Random) -> None:
        """Kill one of them, and start another one in its place."""
        start, process = self.processes.pop(chance.randrange(len(self.processes)))
        self.bank.kill(process)
        self.processes.append((start, await start()))

    async def settle(self, writer: int) -> None:
        """End the writer, and judge (I2): committed, stored and its effect, each exactly once."""
        self.bank.kill(writer)
        committed, stored = await self.bank.settled()
        await self.bank.handled(committed)
        assert sorted(stored) == committed, "stored isn't what was committed"
        assert in_order(stored), "stored in another order than it was committed"
        assert await self.bank.effects() == committed, "I2: effects aren't what was committed"
        say(f"{len(committed)} bookings were committed, stored and had their effect, each once")


@dataclass(frozen=True, slots=True)
class World:
    """What can be broken."""

    server: NatsServer
    lines: tuple[Proxy, ...]
    workers: tuple[Worker, ...]
    clerks: Clerks
    chance: random.Random

    def line(self) -> Proxy:
        """Return one of the lines."""
        return self.chance.choice(self.lines)

    def worker(self) -> Worker:
        """Return one of the listening processes."""
        return self.chance.choice(self.workers)


Fault = Callable[[World], Awaitable[str]]


async def server_dies(world: World) -> str:
    """Kill the server and start it again."""
    down = world.chance.uniform(0, 3)
    world.server.kill()
    await asyncio.sleep(down)
    await asyncio.to_thread(world.server.restart)
    return f"the server was killed, and down for {down:.1f} s"


async def server_freezes(world: World) -> str:
    """Stop the server for a while."""
    frozen = world.chance.uniform(0.5, 6)
    world.server.pause()
    await asyncio.sleep(frozen)
    world.server.resume()
    return f"the server was frozen for {frozen:.1f} s"


async def line_resets(world: World) -> str:
    """Reset a line several times."""
    line, times = world.line(), world.chance.randint(1, 4)
    for _ in range(times):
        line.reset()
        await asyncio.sleep(0.3)
    return f"a line was reset {times} times"


async def line_dies(world: World) -> str:
    """Let nothing, or only one direction, through a line for a while."""
    line, dead = world.line(), world.chance.uniform(0.5, 7)
    fault = world.chance.choice((line.black_hole, line.lose_answers, line.lose_requests))
    fault()
    await asyncio.sleep(dead)
    line.restore()
    return f"a line was dead for {dead:.1f} s ({fault.__name__})"


async def line_slows(world: World) -> str:
    """Make a line slow for a while."""
    line, slow = world.line(), world.chance.uniform(2, 7)
    line.latency, line.jitter = 0.1, 0.08
    await asyncio.sleep(slow)
    line.latency = line.jitter = 0.0
    return f"a line was slow for {slow:.1f} s"


async def worker_dies(world: World) -> str:
    """Kill a worker and start another one in its place."""
    worker = world.worker()
    worker.kill()
    worker.start()
    return "a worker was killed"


async def worker_freezes(world: World) -> str:
    """Stop a worker for longer than its leases."""
    worker, frozen = world.worker(), world.chance.uniform(1, 8)
    worker.freeze()
    await asyncio.sleep(frozen)
    worker.thaw()
    return f"a worker was frozen for {frozen:.1f} s"


async def worker_is_replaced(world: World) -> str:
    """Stop a worker as a deploy does."""
    worker = world.worker()
    worker.signal(signal.SIGTERM)
    await asyncio.to_thread(worker.wait, 20)
    worker.start()
    return "a worker was told to stop, and replaced"


async def clerk_dies(world: World) -> str:
    """Kill some relays and listeners of the bank."""
    times = world.chance.randint(1, 4)
    for _ in range(times):
        await world.clerks.die(world.chance)
        await asyncio.sleep(world.chance.uniform(0, 1))
    return f"{times} relays and listeners of the bank were killed"


async def clerk_freezes(world: World) -> str:
    """Stop a relay or listener of the bank for longer than its lease."""
    _, process = world.chance.choice(world.clerks.processes)
    frozen = world.chance.uniform(1, 6)
    world.clerks.bank.freeze(process)
    await asyncio.sleep(frozen)
    world.clerks.bank.thaw(process)
    return f"a relay or listener of the bank was frozen for {frozen:.1f} s"


FAULTS: tuple[Fault, ...] = (
    clerk_dies,
    clerk_freezes,
    server_dies,
    server_freezes,
    line_resets,
    line_dies,
    line_slows,
    worker_dies,
    worker_freezes,
    worker_is_replaced,
)


async def soak(*, minutes: float, rate: float, seed: int, folder: Path) -> None:
    """Run it all; raises an AssertionError where an invariant doesn't hold."""
    lasts = minutes * 60
    begun = time.monotonic()
    with NatsServer(store=folder / "nats") as server:
        database = f"sqlite+aiosqlite:///{folder}/bank.db"
        async with (
            Proxy(server.url) as emitting,
            Proxy(server.url) as working,
            Bank.open(server.url, database, folder, namespace="bank") as bank,
        ):
            stage = Stage(server.url, folder)
            try:
                common = {"ack_wait": 5.0, "attempts": 5, "settings": {"grace": 5}}
                workers = tuple(
                    stage.worker(name, url=working.url, **common).start() for name in ("a", "b")
                )
                await stage.started(2)
                emitter = stage.worker(
                    "e",
                    url=emitting.url,
                    service="source",
                    listener="",
                    rate=rate,
                    lasts=lasts,
                    seed=str(seed),
                )
                emitter.start()
                clerks = Clerks(bank)
                writer = await clerks.hire()
                lines = (emitting, working)
                world = World(server, lines, workers, clerks, random.Random(seed))
                await break_things(world, until=begun + lasts)
                await clerks.settle(writer)
                await finish(stage)
            finally:
                await stage.close()


async def break_things(world: World, *, until: float) -> None:
    """Have a random fault every ten seconds, and say which; each comes before one comes again."""
    begun = time.monotonic()
    bag: list[Fault] = []
    due = begun + EVERY
    while due + EVERY < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        bag = bag or world.chance.sample(FAULTS, len(FAULTS))
        fault = bag.pop()
        at = time.monotonic() - begun
        say(f"{at:6.1f} s  {await fault(world)}")
        due += EVERY
    await asyncio.sleep(max(0.0, until - time.monotonic()))


async def finish(stage: Stage) -> None:
    """Wait until all is handled, and judge."""
    await stage.drained(90)
    await asyncio.sleep(QUIET)
    stage.history.refresh()
    for process, entries in by_process(stage).items():
        measure(stage, process, entries)
    await stage.check()
    assert await stage.ground.letters() == [], "innocent events became dead letters"
    emits = len(stage.history.of(What.STORED))
    runs = stage.history.counts(What.EFFECT)
    say(f"{emits} emits returned, {len(runs)} events were handled, {runs.total()} times in all")


def by_process(stage: Stage) -> dict[int, list[Entry]]:
    """Return what each process that lives tells of itself."""
    last = max(one.at for one in stage.history.entries)
    told: dict[int, list[Entry]] = {}
    for one in stage.history.of(What.VITALS):
        told.setdefault(one.process, []).append(one)
    return {process: all_ for process, all_ in told.items() if last - all_[-1].at < QUIET}


def measure(stage: Stage, process: int, entries: list[Entry]) -> None:
    """Hold what a process uses at the end against what it used when it was warm."""
    warm = [one for one in entries if one.at - entries[0].at >= WARM]
    if not warm:
        return
    first, last = json.loads(warm[0].detail), json.loads(entries[-1].detail)
    most = max(json.loads(one.detail)["tasks"] for one in entries)
    limits = {**LIMITS, "rss": LIMITS["rss"] + most * WAITING}
    for what, limit in limits.items():
        stage.measure(f"{what} that process {process} gained", last[what] - first[what], limit)
    say(f"process {process}: {first} when warm, {last} at the end, {most:g} tasks at most")


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201 - a command's output


def main() -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    asked = parser.parse_args()
    say(f"{asked.rate:g} events/s for {asked.minutes:g} minutes, --seed {asked.seed}")
    with tempfile.TemporaryDirectory(prefix="eventbus-soak-") as folder:
        try:
            asyncio.run(
                soak(
                    minutes=asked.minutes,
                    rate=asked.rate,
                    seed=asked.seed,
                    folder=Path(folder),
                )
            )
        except AssertionError as exc:
            say(f"FAILED with --seed {asked.seed}\n{exc}")
            return 1
    say("nothing was lost, and nothing grew")
    return 0


if __name__ == "__main__":
    sys.exit(main())
