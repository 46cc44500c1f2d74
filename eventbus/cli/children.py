"""`Child`: an ``eventbus run`` in a process of its own, whose lines are handed on."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ("Child", "environment")

_CHUNK = 65536
_SERVER = (
    "NATS_URL",
    "NATS_CREDS",
    "NATS_CLUSTER_ID",
    "EVENTBUS_CLUSTER_NAME",
    "EVENTBUS_NATS_CREDS",
    "EVENTBUS_NATS_NKEY_SEED",
    "EVENTBUS_NATS_PASSWORD",
    "EVENTBUS_NATS_TOKEN",
    "EVENTBUS_NATS_USER",
    "EVENTBUS_TLS_CA",
    "EVENTBUS_TLS_CERT",
    "EVENTBUS_TLS_HOSTNAME",
    "EVENTBUS_TLS_KEY",
)
"""What is set for another server than the embedded one."""


def environment(server: str, **settings: str) -> dict[str, str]:
    """Return this process's environment, for children that use ``server`` and these settings."""
    # Empty and not left out: a .env file in the working directory may set them too.
    hidden = dict.fromkeys(_SERVER, "")
    ours = {"EVENTBUS_NATS_URL": server, "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **hidden, **settings, **ours}


class Child:
    """One process of the command line, which stops when we are gone.

    Its standard output is read line by line. Standard error comes in between, or goes to a file.
    It is in a session of its own: a Ctrl-C is for us, and we then stop it.
    """

    def __init__(self, name: str, arguments: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.name = name
        self._arguments = arguments
        self._env = env
        self._process: Process | None = None
        self.stopping = False
        """Whether it was told to end."""

    async def start(self, *, folder: Path | None = None, errors: BinaryIO | None = None) -> None:
        """Start the process, in a working directory of its own where ``folder`` says so."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "eventbus.cli", "run", "--with-parent", *self._arguments),
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors or STDOUT,
            cwd=folder,
            env=self._env,
            start_new_session=True,
        )

    async def read(self, line: Callable[[str], None]) -> int:
        """Hand on what it prints, line by line, and return its exit code once it has ended."""
        assert self._process is not None, "not started"
        assert self._process.stdout is not None, "its output isn't ours"
        rest = b""
        # Not readline: it fails on a line that is longer than its buffer.
        while chunk := await self._process.stdout.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for one in lines:
                line(one.decode(errors="replace"))
        if rest:
            line(rest.decode(errors="replace"))
        return await self._process.wait()

    async def stop(self, grace: float) -> None:
        """End it: SIGTERM, and by force where that takes longer than ``grace`` seconds."""
        self.stopping = True
        if self._process is None or self._process.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self._process.wait()

    def kill(self) -> None:
        """End it at once, as a crash does; callable from any thread."""
        self.stopping = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        with suppress(ProcessLookupError):  # it has ended by itself
            self._process.send_signal(number)
