"""`Workers`: several processes of the same services, kept running until they are told to stop."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence

from eventbus.cli.children import Child
from eventbus.runner import SLACK, Stop
from eventbus.settings import Settings

__all__ = ("Workers",)

_log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY = 60.0
"""A process that ran for so many seconds has not failed again, it has failed once more."""
WRONG_SET_UP = 2
"""The exit code of a process that another try won't mend."""


class Workers:
    """Runs ``count`` processes; they share the events of each listener as processes always do.

    The n-th, counted from 0, is the instance ``<EVENTBUS_INSTANCE>-<n>`` where that is set, also
    when it is started again.
    A process that ends unasked is started again, after a pause that doubles from 0.5 to 30 s
    while it goes on ending within a minute. One that is set up wrongly ends all of them.
    """

    def __init__(
        self, targets: Sequence[str], queues: Sequence[str], count: int, settings: Settings
    ) -> None:
        options = [word for queue in queues for word in ("--queue", queue)]
        self._arguments = (*targets, *options)
        self._count = count
        self._settings = settings
        self._code = 0

    async def run(self, stop: Stop) -> int:
        """Run them until ``stop`` is asked; return 0, or the code of what can't be mended."""
        patience = self._settings.grace + SLACK
        stop.grace = patience + SLACK
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._keep(number, stop, patience))
        return self._code

    async def _keep(self, number: int, stop: Stop, patience: float) -> None:
        """Run one process, again and again."""
        failures = 0
        while not stop.asked:
            child = Child(f"worker {number}", self._arguments, self._environment(number))
            begun = time.monotonic()
            code = await _run(child, stop, patience)
            if stop.asked:
                return
            if code == WRONG_SET_UP:
                self._code = code
                stop.ask()
                return
            failures = 0 if time.monotonic() - begun > STEADY else failures
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**failures)
            failures += 1
            _log.error(
                "worker.ended", extra={"worker": number, "code": code, "restart_in_s": pause}
            )
            await stop.before(asyncio.sleep(pause))

    def _environment(self, number: int) -> dict[str, str]:
        """Return a process's environment: each has its own port for metrics, and its own name."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self._settings.instance:
            # With one name for all, they would share what each of them is to hear.
            environment["EVENTBUS_INSTANCE"] = f"{self._settings.instance}-{number}"
        if self._settings.metrics_port:
            environment["EVENTBUS_METRICS_PORT"] = str(self._settings.metrics_port + number)
        return environment


async def _run(child: Child, stop: Stop, patience: float) -> int:
    """Run a process to its end and return its exit code; an order to stop is passed on."""
    await child.start(errors=sys.stderr.buffer)
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(child.read(_print))
            stopping = group.create_task(stop.wait())
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await child.stop(patience)
            stopping.cancel()
        return reading.result()
    finally:
        await child.stop(patience)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
