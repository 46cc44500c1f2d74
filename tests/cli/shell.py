"""The command line as a user has it: processes, their lines, and a project to run them in."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.paths import PYTHON_PATH

PATIENCE = 120.0
"""Seconds for what has to come; a busy machine takes ten times as long as an idle one."""
COMMAND = (sys.executable, "-m", "eventbus.cli")

SCHEMAS = """
from eventbus.event import Event


class OrderPlaced(Event, name="order.placed", key="order_id"):
    order_id: str
    work: float = 0


class OrderPacked(Event, name="order.packed"):
    order_id: str


class OrderLost(Event, name="order.lost"):
    order_id: str
"""
SHOP = """
import asyncio
import time
from pathlib import Path

from eventbus import EventService
from schemas.order import OrderPacked, OrderPlaced

events = EventService("shop")


@events.subscribe(OrderPlaced, ack_wait=600, timeout=600)
async def pack(event: OrderPlaced) -> None:
    print("packing", event.order_id, flush=True)
    await asyncio.sleep(event.work)
    while event.order_id == "held" and not Path("go-on").exists():
        await asyncio.sleep(0.02)
    print("packed", event.order_id, flush=True)


@events.subscribe(OrderPacked, queue="heavy")
async def ship(event: OrderPacked) -> None:
    print("shipping", event.order_id, flush=True)
    if event.order_id == "loop":
        time.sleep(60)
    if event.order_id == "thread":
        await asyncio.to_thread(time.sleep, 60)
"""
STORE = """
from eventbus import EventService

events = EventService("store")
twin = EventService("shop")
number = 1
"""


PROJECT = {
    "schemas/order.py": SCHEMAS,
    "services/shop.py": SHOP,
    "services/store.py": STORE,
}


def project(folder: Path, files: Mapping[str, str]) -> Path:
    """Lay out a project; without files its packages are empty, and hide the repository's own."""
    packages = {"schemas/__init__.py": "", "services/__init__.py": ""}
    for name, content in {**packages, **files}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return folder


def environment(**settings: str) -> dict[str, str]:
    """Return an environment without the settings of whoever runs the tests."""
    foreign = ("EVENTBUS_", "NATS_", "APP_EVENT_", "EVENTS_", "EVENT_RETRY_", "OTEL_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    if "EVENTBUS_NATS_SERVER" in os.environ:
        own["EVENTBUS_NATS_SERVER"] = os.environ["EVENTBUS_NATS_SERVER"]
    return own | {"PYTHONPATH": PYTHON_PATH} | settings


def cli(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Running:
    """A command that runs, and everything it has printed."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self.popen = popen
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()

    def line(self, wanted: str | Callable[[str], bool], *, after: int = 0) -> str:
        """Wait for a line that holds a text and return it."""
        fits = wanted if callable(wanted) else lambda line: wanted in line
        with self._grown:
            found = self._grown.wait_for(
                lambda: next((one for one in self.lines[after:] if fits(one)), None),
                timeout=PATIENCE,
            )
        assert found is not None, f"{wanted!r} isn't in:\n" + "\n".join(self.lines)
        return found

    def has(self, text: str) -> bool:
        """Tell whether it has printed a text."""
        return any(text in line for line in self.lines)

    def end(self, timeout: float = PATIENCE) -> int:
        """Wait for its end and return its code."""
        code = self.popen.wait(timeout)
        self._reader.join()
        return code


@contextmanager
def started(
    *arguments: str, cwd: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a command within; it is killed at the end if it still runs."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**(settings or {})),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as popen:
        running = Running(popen)
        try:
            yield running
        finally:
            popen.kill()
            running.end()


def until(condition: Callable[[], bool], problem: str, timeout: float = PATIENCE) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.02)
