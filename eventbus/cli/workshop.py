"""What `eventbus dev` runs: a server, a process for each service, and the watch over their code."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

from eventbus.cli import console
from eventbus.cli.children import Child, environment
from eventbus.duration import seconds
from eventbus.embedded import NatsServer
from eventbus.runner import Stop

__all__ = ("Workshop", "affected")

GRACE = "5"
"""Seconds that a stop may take where EVENTBUS_GRACE isn't set: somebody waits for the restart."""
PATIENCE = 3.0
"""Seconds after that until a process is killed."""
DEFAULT_URL = "nats://127.0.0.1:4222"
_COLORS = cycle(("36", "33", "32", "35", "34", "96", "93", "92"))


class Workshop:
    """One process for each target."""

    def __init__(self, targets: Sequence[str], *, store: Path | None, port: int | None) -> None:
        self._server = NatsServer(store=store, port=_server_port(port))
        self._kept = store is not None
        self._targets = tuple(dict.fromkeys(targets))
        self._changed = {target: asyncio.Event() for target in self._targets}

    async def run(self, stop: Stop) -> int:
        """Run until the order to stop; return 0.

        Raises:
            ServerStartError, ServerNotFoundError: There is no server to run on.
        """
        async with self._server, asyncio.TaskGroup() as group:
            self._welcome()
            width = max(len(_short(target)) for target in self._targets)
            for target in self._targets:
                group.create_task(self._keep(target, _printer(_short(target), width), stop))
            watching = group.create_task(self._watch())
            await stop.wait()
            for changed in self._changed.values():
                changed.set()
            watching.cancel()
        return 0

    def _welcome(self) -> None:
        server = self._server
        where = (
            f"events are kept in {server.store}" if self._kept else "events are gone at the end"
        )
        print(f"nats-server {server.version} on {server.url}, {where}", flush=True)
        if server.url != DEFAULT_URL:
            print(f"in other terminals: export EVENTBUS_NATS_URL={server.url}", flush=True)

    async def _keep(self, target: str, print_line: Callable[[str], None], stop: Stop) -> None:
        """Run one target, and start it again whenever it has changed."""
        env = _environment(self._server.url)
        changed = self._changed[target]
        while not stop.asked:
            changed.clear()
            child = Child(target, (target,), env)
            await child.start()
            async with asyncio.TaskGroup() as group:
                group.create_task(_hand_on(child, print_line, changed))
                await changed.wait()
                # Its reader ends with it, so that the last lines aren't lost.
                await child.stop(seconds(env["EVENTBUS_GRACE"]) + PATIENCE)

    async def _watch(self) -> None:
        from watchfiles import (
            PythonFilter,
            awatch,  # pyright: ignore[reportUnknownVariableType] - names trio
        )

        root = Path.cwd()
        async for changes in awatch(root, watch_filter=PythonFilter()):
            paths = [Path(path) for _, path in changes]
            for target in affected(self._targets, paths, root):
                self._changed[target].set()


async def _hand_on(
    child: Child, print_line: Callable[[str], None], changed: asyncio.Event
) -> None:
    code = await child.read(print_line)
    if changed.is_set():
        print_line("stopped")
    else:
        print_line(f"ended with code {code}; it starts again when a file changes")


def affected(targets: Sequence[str], changed: Sequence[Path], root: Path) -> set[str]:
    """Return the targets that changed files may concern.

    A file in the folder of a target's package (or that is its module) concerns the targets that
    own it, every other file concerns all: services don't import one another.
    """
    concerned: set[str] = set()
    for path in changed:
        owners = {target for target in targets if _owns(target, path, root)}
        concerned |= owners or set(targets)
    return concerned


def _owns(target: str, path: Path, root: Path) -> bool:
    place = root.joinpath(*target.partition(":")[0].split("."))
    return path.is_relative_to(place) or path == place.with_suffix(".py")


def _environment(server: str) -> dict[str, str]:
    """Return the children's environment; ports are chosen once, so that a restart keeps them."""
    settings = {
        "EVENTBUS_HTTP_PORT": str(_free_port()),
        "EVENTBUS_METRICS_PORT": str(_free_port()),
        "EVENTBUS_GRACE": GRACE,
        "EVENTBUS_LOG_FORMAT": "console",
    }
    return environment(
        server, **{name: os.environ.get(name) or settings[name] for name in settings}
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def _server_port(wanted: int | None) -> int:
    """Return the port that was asked for, else NATS's own where it is free, else any."""
    if wanted is not None:
        return wanted
    try:
        with socket.create_server(("127.0.0.1", 4222)):
            return 4222
    except OSError:
        return -1


def _short(target: str) -> str:
    module, _, name = target.partition(":")
    short = module.rpartition(".")[2]
    return short if name == "events" else f"{short}:{name}"


def _printer(name: str, width: int) -> Callable[[str], None]:
    color = next(_COLORS)
    prefix = f"{name:<{width}} | "
    if console.colored(sys.stdout):
        prefix = f"\x1b[{color}m{prefix}\x1b[0m"
    return lambda line: print(prefix + line, flush=True)
