"""A process of its own with a real service, which can be killed, frozen and told to stop.

``python -m tests.faults.harness.worker WORK`` is that process; `Worker` is its handle.
"""

import asyncio
import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eventbus import EventService, Retry
from eventbus.runner import SLACK, Stop, end_with_parent, run_until_stopped, serve
from eventbus.settings import Settings
from tests.faults.harness.history import FileLedger, What
from tests.faults.harness.profile import NAIVE, bus
from tests.faults.harness.step import StepTaken
from tests.faults.harness.witness import Witness

__all__ = ("Work", "Worker")

VITALS_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker does."""

    url: str
    ledger: str
    service: str = "mailer"
    listener: str = "send"
    """Empty for none."""
    concurrency: int = 16
    ack_wait: float = 2.0
    timeout: float = 30.0
    attempts: int = 3
    backoff: float = 0.1
    """Seconds before the second attempt."""
    ordered: bool = False
    does: str = ""
    """What its listener does, whatever its events ask for."""
    rate: float = 0.0
    """Steps to emit in a second."""
    lasts: float = math.inf
    """Seconds after which it emits no more, and goes on living."""
    seed: str = ""
    """Tells the steps of one emitter from another's."""
    settings: dict[str, object] = field(default_factory=dict)


class Worker:
    """The handle of a worker's process."""

    def __init__(self, work: Work, *, log: Path) -> None:
        self.work = work
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended; None while it lives."""
        return None if self._process is None else self._process.poll()

    def start(self) -> "Worker":
        """Start it, also again; its ledger tells when it works."""
        self.close()
        command = [sys.executable, "-m", "tests.faults.harness.worker"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, json.dumps(asdict(self.work))],
                stdin=subprocess.PIPE,  # it ends when this closes: with us
                stdout=log,
                stderr=log,
            )
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would (``kill -9``)."""
        self.signal(signal.SIGKILL)
        self.wait(5)

    def freeze(self) -> None:
        """Stop all of it, in the middle of whatever it does."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def wait(self, seconds: float) -> int:
        """Wait for its end, and return its exit code."""
        assert self._process is not None, "not started"
        return self._process.wait(seconds)

    def close(self) -> None:
        """End it, in whatever state it is."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def main() -> int:
    """Be a worker."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    end_with_parent()
    work = Work(**json.loads(sys.argv[1]))
    settings = Settings(nats_url=work.url, **work.settings)  # type: ignore[arg-type]
    ledger = FileLedger(Path(work.ledger))
    witness = Witness(ledger)
    events = _service(work, settings, witness)
    if NAIVE:
        return asyncio.run(_naive(events, work, witness))

    def run(stop: Stop) -> "asyncio.Future[int] | object":
        stop.grace = settings.grace + SLACK
        return serve([events], settings, stop)

    code = run_until_stopped(run)  # type: ignore[arg-type]
    witness.note(What.STOPPED, str(code))
    return code


def _service(work: Work, settings: Settings, witness: Witness) -> EventService:
    events = bus(work.service, settings)
    events.observe(witness.observe)
    if work.listener:
        events.subscribe(
            StepTaken,
            witness.listener(work.listener, does=work.does),
            name=work.listener,
            concurrency=work.concurrency,
            ack_wait=work.ack_wait,
            timeout=work.timeout,
            retry=Retry(attempts=work.attempts, start=work.backoff, jitter="none"),
            ordered=work.ordered,
        )
    if not NAIVE:
        events.background(lambda: _beside(events, work, witness))
    return events


async def _beside(events: EventService, work: Work, witness: Witness) -> None:
    """Say that the service works, then how it does, and emit if that is its work."""
    witness.note(What.STARTED)
    async with asyncio.TaskGroup() as group:
        group.create_task(_vitals(witness))
        if work.rate:
            group.create_task(_emit(events, work, witness))


async def _vitals(witness: Witness) -> None:
    while True:
        witness.note(What.VITALS, json.dumps(vitals()))
        await asyncio.sleep(VITALS_EVERY)


def vitals() -> dict[str, float]:
    """Return the tasks, the open file descriptors and the memory in MB of this process."""
    resident = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line
    )
    return {
        "tasks": len(asyncio.all_tasks()),
        "fds": len(os.listdir("/proc/self/fd")),
        "rss": int(resident.split()[1]) / 1024,
    }


async def _emit(events: EventService, work: Work, witness: Witness) -> None:
    """Emit at an even rate; what isn't known is emitted again until it is."""
    chance = random.Random(work.seed)
    begun = time.monotonic()
    number = 0
    async with asyncio.TaskGroup() as group:
        while time.monotonic() - begun < work.lasts:
            number += 1
            await asyncio.sleep(max(0.0, begun + number / work.rate - time.monotonic()))
            thread = f"{work.seed}-{chance.randrange(100)}"
            group.create_task(_persist(events, witness, StepTaken(thread=thread, number=number)))


async def _persist(events: EventService, witness: Witness, step: StepTaken) -> None:
    while True:
        try:
            await witness.emit(events, step)
        except Exception:  # noqa: BLE001 - it is in the ledger
            await asyncio.sleep(0.2)
        else:
            return


async def _naive(events: EventService, work: Work, witness: Witness) -> int:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    async with events, asyncio.TaskGroup() as group:
        beside = group.create_task(_beside(events, work, witness))
        await asked.wait()
        beside.cancel()
    witness.note(What.STOPPED, "0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
