"""The system that the demo runs: a server and a process for each service, in a temporary folder."""

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from eventbus.cli.children import Child, environment
from eventbus.cli.demo.http import UnreachableError, get
from eventbus.cli.demo.scrape import Samples, parse
from eventbus.embedded import NatsServer
from eventbus.errors import ConfigurationError, EventBusError
from eventbus.loading import search_working_directory

__all__ = (
    "PROCESSES",
    "SERVICES",
    "ServiceEndedError",
    "System",
    "forget_settings",
    "require_services",
    "running",
)

SERVICES = (
    "audit",
    "notification",
    "triage",
    "inventory",
    "payment",
    "user",
    "vendor",
    "order",
    "webhooks",
)
"""Listeners first, so that they are there when the first event is."""
PROCESSES: Mapping[str, str] = MappingProxyType(
    {**{one: one for one in SERVICES}, "payment-2": "payment"}
)
"""Each process and its service; two of payment, which then emit what recurs together."""
HTTP = frozenset(("user", "vendor", "order", "payment", "payment-2", "webhooks"))
START_PATIENCE = 60.0
POLL = 0.05
GRACE = 5.0
LOG_TAIL = 15
AUDIT = "audit.sqlite3"
MAILDIR = "maildir"
_KEPT = ("EVENTBUS_NATS_SERVER", "EVENTBUS_TRACING", "EVENTBUS_LOG_LEVEL")
_SETTINGS = ("EVENTBUS_", "NATS_", "APP_EVENT_", "EVENTS_", "EVENT_RETRY_")


class ServiceEndedError(EventBusError):
    """A service of the demo ended by itself, or didn't become ready."""

    code = "demo.service"


def require_services() -> Path:
    """Return the folder that holds the services, which is the working directory.

    Raises:
        ConfigurationError: They aren't there.
    """
    search_working_directory()
    missing = [name for name in SERVICES if not _found(f"services.{name}")]
    if missing:
        raise ConfigurationError(
            "the demo runs the example services of the eventbus repository, and "
            f"{_listed(missing)} isn't in {Path.cwd()}; run it in a clone of the repository, "
            "where 'make demo' sets up what it needs"
        )
    return Path.cwd()


def _found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _listed(missing: list[str]) -> str:
    return "services/" if len(missing) == len(SERVICES) else f"services/{missing[0]}"


@dataclass(slots=True)
class System:
    """The running server and services."""

    server: NatsServer
    folder: Path
    secret: str
    """What GitHub's deliveries are signed with."""
    group: asyncio.TaskGroup
    """Where the processes are watched."""
    env: Mapping[str, str]
    """Their environment, but for their databases."""
    children: dict[str, Child] = field(default_factory=dict[str, Child])
    http: dict[str, str] = field(default_factory=dict[str, str])
    """Where the processes answer, by name."""
    metrics: dict[str, str] = field(default_factory=dict[str, str])
    """Where their metrics are."""

    @property
    def audit_database(self) -> Path:
        """The audit service's database."""
        return self.folder / AUDIT

    @property
    def maildir(self) -> Path:
        """Where mails are delivered to."""
        return self.folder / MAILDIR

    def database(self, service: str) -> Path:
        """Return the file of a service's outbox and inbox."""
        return self.folder / f"{service}.sqlite3"

    def log(self, process: str) -> Path:
        """Return the log file of a process."""
        return self.folder / f"{process}.log"

    async def scrape(self) -> dict[str, Samples]:
        """Return what every service counts now, in all of its processes, by its name.

        Raises:
            UnreachableError: One doesn't answer.
        """
        answers = await asyncio.gather(*(get(url) for url in self.metrics.values()))
        found: dict[str, Samples] = {}
        for name, answer in zip(self.metrics, answers, strict=True):
            service = PROCESSES[name]
            found[service] = found.get(service, Samples()) + parse(answer.body.decode())
        return found

    def start(self, *names: str) -> None:
        """Start processes, and watch them."""
        for name in names:
            service = PROCESSES[name]
            store = f"sqlite+aiosqlite:///{self.database(service)}"
            env = {**self.env, "EVENTBUS_STORE_URL": store}
            child = self.children[name] = Child(name, (f"services.{service}:events",), env)
            self.group.create_task(self.keep(child))

    def kill(self, *names: str) -> None:
        """Kill processes, as crashes do; callable from any thread."""
        for name in names:
            self.children[name].kill()

    async def restart(self, *names: str) -> None:
        """Start processes again that were killed, and wait until they are ready.

        Raises:
            ServiceEndedError: One isn't within a minute.
        """
        for name in names:
            self.http.pop(name, None)
            self.metrics.pop(name, None)
        self.start(*names)
        await self.ready(names)

    async def ready(self, names: Iterable[str] = PROCESSES) -> None:
        """Wait until processes answer and are ready.

        Raises:
            ServiceEndedError: One isn't within a minute.
        """
        deadline = asyncio.get_running_loop().time() + START_PATIENCE
        for name in names:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._until_ready(name)
            except TimeoutError as exc:
                raise ServiceEndedError(
                    self._explained(name, f"wasn't ready in {START_PATIENCE:g} s")
                ) from exc

    async def _until_ready(self, name: str) -> None:
        while not await self._is_ready(name):  # noqa: ASYNC110 - another process tells no event
            await asyncio.sleep(POLL)

    async def _is_ready(self, name: str) -> bool:
        if name not in self.metrics or (name in HTTP and name not in self.http):
            return False
        try:
            answer = await get(self.metrics[name].replace("/metrics", "/readyz"))
        except UnreachableError:
            return False
        return answer.status == 200

    async def keep(self, child: Child) -> None:
        """Run a child until it ends.

        Raises:
            ServiceEndedError: It ended by itself.
        """
        with self.log(child.name).open("ab") as log:
            await child.start(folder=self.folder, errors=log)
        code = await child.read(partial(self._note, child.name))
        if not child.stopping:
            raise ServiceEndedError(self._explained(child.name, f"ended with code {code}"))

    def _note(self, process: str, line: str) -> None:
        """Remember an address that a process prints, ``<service> http|metrics <url>``."""
        match line.split(" "):
            case [_, "http", url]:
                self.http[process] = url
            case [_, "metrics", url]:
                self.metrics[process] = url
            case _:
                pass

    def _explained(self, name: str, problem: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()[-LOG_TAIL:]
        return "\n  ".join([f"service '{name}' {problem}; it logged:", *(lines or ["nothing"])])


@asynccontextmanager
async def running(root: Path) -> AsyncGenerator[System]:
    """Run the services that lie in ``root``; what they leave is removed at the end.

    Raises:
        ServiceEndedError: One ended by itself, at any time.
        ServerNotFoundError, ServerStartError: There is no server to run on.
    """
    with tempfile.TemporaryDirectory(prefix="eventbus-demo-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        async with NatsServer(store=folder / "nats") as server, asyncio.TaskGroup() as group:
            secret = secrets.token_hex(16)
            env = _environment(server.url, folder, secret, root)
            system = System(server, folder, secret, group, env)
            system.start(*PROCESSES)
            try:
                yield system
            finally:
                await asyncio.gather(*(one.stop(GRACE + 1) for one in system.children.values()))


def forget_settings() -> None:
    """Remove the user's own settings from this process: the demo is a bus for itself."""
    for name in list(os.environ):
        if name.startswith(_SETTINGS) and name not in _KEPT:
            del os.environ[name]


def _environment(server: str, folder: Path, secret: str, root: Path) -> dict[str, str]:
    """Return the services' environment; they run where no ``.env`` is, and find code by path."""
    paths = [str(root), os.environ.get("PYTHONPATH")]
    if sys.flags.safe_path:  # nothing of where it was started comes before the rest
        paths.reverse()
    path = os.pathsep.join(filter(None, paths))
    return environment(
        server,
        PYTHONPATH=path,
        EVENTBUS_AUDIT_DATABASE=str(folder / AUDIT),
        EVENTBUS_MAILDIR=str(folder / MAILDIR),
        EVENTBUS_WEBHOOK_SECRET=secret,
        EVENTBUS_METRICS_PORT="0",
        EVENTBUS_HTTP_PORT="0",
        EVENTBUS_GRACE=str(GRACE),
        EVENTBUS_FOLLOW_UP_AFTER="2",  # not three days
        EVENTBUS_STATEMENT_EVERY="1",  # not a day
        EVENTBUS_LOG_FORMAT="json",
    )
