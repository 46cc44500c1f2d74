"""A worker's process whose listener is ordered.

``python -m tests.faults.ordered_worker WORK`` is that process; `OrderedWorker` is its handle.
"""

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from eventbus import EventService, Retry
from eventbus.runner import SLACK, Stop, end_with_parent, run_until_stopped, serve
from eventbus.settings import Settings
from tests.faults.harness.history import FileLedger, What
from tests.faults.harness.profile import NAIVE, bus
from tests.faults.harness.step import StepTaken
from tests.faults.harness.witness import Witness
from tests.faults.harness.worker import Work, Worker

__all__ = ("OrderedWorker",)


@dataclass(slots=True)
class _Order:
    work: Work
    on_failure: str


class OrderedWorker(Worker):
    """The handle of a worker's process whose listener is ordered."""

    def __init__(self, work: Work, *, log: Path, on_failure: str = "skip") -> None:
        super().__init__(work, log=log)
        self._on_failure = on_failure

    def start(self) -> "OrderedWorker":
        """Start it, also again; its ledger tells when it works."""
        self.close()
        order = json.dumps(asdict(_Order(self.work, self._on_failure)))
        command = [sys.executable, "-m", "tests.faults.ordered_worker", order]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # it ends when this closes: with us
                stdout=log,
                stderr=log,
            )
        return self


def main() -> int:
    """Be such a worker."""
    end_with_parent()
    order = json.loads(sys.argv[1])
    work = Work(**order["work"])
    settings = Settings(nats_url=work.url, **work.settings)  # type: ignore[arg-type]
    witness = Witness(FileLedger(Path(work.ledger)))
    events = _service(work, order["on_failure"], settings, witness)
    if NAIVE:
        return asyncio.run(_naive(events, witness))

    def run(stop: Stop) -> "asyncio.Future[int] | object":
        stop.grace = settings.grace + SLACK
        return serve([events], settings, stop)

    code = run_until_stopped(run)  # type: ignore[arg-type]
    witness.note(What.STOPPED, str(code))
    return code


def _service(work: Work, on_failure: str, settings: Settings, witness: Witness) -> EventService:
    events = bus(work.service, settings)
    events.observe(witness.observe)
    events.subscribe(
        StepTaken,
        witness.listener(work.listener),
        name=work.listener,
        ordered=True,
        on_failure=on_failure,  # type: ignore[arg-type]
        concurrency=work.concurrency,
        ack_wait=work.ack_wait,
        timeout=work.timeout,
        retry=Retry(attempts=work.attempts, start=0.05, jitter="none"),
    )
    if not NAIVE:
        events.background(lambda: _beside(witness))
    return events


async def _beside(witness: Witness) -> None:
    witness.note(What.STARTED)
    await asyncio.Event().wait()


async def _naive(events: EventService, witness: Witness) -> int:
    async with events:
        await _beside(witness)
    return 0


if __name__ == "__main__":
    sys.exit(main())
