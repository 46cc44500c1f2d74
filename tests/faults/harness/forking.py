"""`Forker`: processes that are there in some milliseconds, so that many can be killed.

A module of the harness is run as a process that has imported everything; for each order, a line
of JSON on its standard input, it forks one that does the work, and answers with its number.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ("Forker", "fork_what_is_ordered")


class Forker:
    """The process that forks, seen from a test."""

    def __init__(self, module: str, log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    async def fork(self, order: object) -> int:
        """Have a process made for an order; return its number."""
        return await asyncio.to_thread(self._fork, json.dumps(order))

    def _fork(self, order: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    async def close(self) -> None:
        """End all processes."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._process.communicate()
        self._log.close()


def fork_what_is_ordered(work: Callable[[str], None]) -> None:
    """Fork for each line of standard input; when it closes, kill what still lives."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    forked: list[int] = []
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                work(line)
            finally:
                os._exit(1)
        forked.append(process)
        sys.stdout.write(f"{process}\n")
        sys.stdout.flush()
    for process in forked:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
