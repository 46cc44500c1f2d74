"""Liveness, readiness, and the endpoint that answers for them even when the event loop doesn't."""

import errno
import json
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6
from socketserver import TCPServer
from typing import ClassVar, TypeAlias
from urllib.parse import urlsplit

from typing_extensions import override

from eventbus.clock import Clock, SystemClock
from eventbus.errors import SettingsError

__all__ = ("Check", "Endpoint", "Exposition", "Health", "watch_loop")

Check: TypeAlias = Callable[[], Iterable[str]]
"""Gives the problems known now; no I/O, callable from any thread."""
Exposition: TypeAlias = Callable[[str], tuple[bytes, str]]
"""Gives the metrics and their content type for an ``Accept`` header."""

LAG_WINDOW = 30
"""How many measures of the event loop the reported lag is the longest of."""

_log = logging.getLogger(__name__)


class Health:
    """Whether a process is alive and whether it is ready; safe to ask from any thread.

    Alive: the event loop turned within ``limit`` seconds, as `watch_loop` sees it. That doesn't
    depend on NATS, since a restart mends no broker. Ready: alive, and no check has a problem.
    """

    def __init__(self, *, limit: float = 10.0, clock: Clock | None = None) -> None:
        self._limit = limit
        self._clock = clock or SystemClock()
        self._checks: list[Check] = []
        self._turned = self._clock.monotonic()

    def add(self, check: Check) -> None:
        """Not be ready while this check gives problems."""
        self._checks.append(check)

    def turned(self) -> None:
        """Note that the event loop turns."""
        self._turned = self._clock.monotonic()

    def live(self) -> tuple[bool, list[str]]:
        """Return whether the process is alive, and what is wrong where it isn't."""
        silent = self._clock.monotonic() - self._turned
        if silent <= self._limit:
            return True, []
        return False, [f"the event loop hasn't turned for {silent:.1f} s"]

    def ready(self) -> tuple[bool, list[str]]:
        """Return whether the data path works, and what doesn't."""
        problems = self.live()[1]
        for check in self._checks:
            try:
                problems.extend(check())
            except Exception as exc:  # noqa: BLE001 - a broken check is a problem of its own
                problems.append(f"a check failed: {exc!r}")
        return not problems, problems


async def watch_loop(
    health: Health,
    lag: Callable[[float], None],
    *,
    interval: float = 0.5,
    blocked: float = 1.0,
    clock: Clock | None = None,
) -> None:
    """Measure by how much the event loop is late, until cancelled.

    Run it as a task beside the service, from before the service starts.

    Args:
        health: Is told that the loop turns.
        lag: Is told the longest delay of the last 15 s, in seconds.
        interval: Seconds between two measures.
        blocked: A delay longer than this is logged, once each time.
        clock: The machine's where None.
    """
    clock = clock or SystemClock()
    recent: deque[float] = deque(maxlen=LAG_WINDOW)
    while True:
        health.turned()
        due = clock.monotonic() + interval
        await clock.sleep(interval)
        late = max(0.0, clock.monotonic() - due)
        recent.append(late)
        lag(max(recent))
        if late > blocked:
            _log.warning(
                "the event loop was blocked for %.1f s; something here works or waits without "
                "await, move it into a thread",
                late,
                extra={"blocked_ms": round(late * 1000)},
            )


class Endpoint:
    """Serves ``/metrics``, ``/livez`` and ``/readyz`` from a thread of its own.

    So it answers while the event loop is blocked, which is when the answer matters.

    Args:
        health: What the probes ask.
        exposition: What ``/metrics`` serves.
        host: The address to listen on.
        port: The port; 0 takes a free one, see `port`.
    """

    def __init__(
        self, health: Health, exposition: Exposition, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._health = health
        self._exposition = exposition
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on, once it has started."""
        return self._server.server_port if self._server is not None else self._port

    def start(self) -> None:
        """Listen; requests are answered from now on.

        Raises:
            SettingsError: The port is taken, or the address isn't this machine's.
        """
        try:
            self._server = _Server(self._host, self._port, self._health, self._exposition)
        except OSError as exc:
            raise SettingsError(_explained(exc, self._host, self._port)) from exc
        self._thread = threading.Thread(
            # The interval is what a stop waits for at most.
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="eventbus-metrics",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port; takes a tenth of a second. Does nothing when not started."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, health: Health, exposition: Exposition) -> None:
        self.health = health
        self.exposition = exposition
        if ":" in host:
            self.address_family = AF_INET6
        super().__init__((host, port), _Request)

    @override
    def server_bind(self) -> None:
        # HTTPServer's looks the host's name up, which can take seconds.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        level = logging.DEBUG if isinstance(sys.exc_info()[1], OSError) else logging.ERROR
        _log.log(level, "the request of %s failed", client_address, exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server_version = "eventbus"
    sys_version = ""
    timeout: ClassVar[float | None] = 5.0
    """Seconds for a client to say what it wants."""

    def do_GET(self) -> None:
        """Answer a probe or a scrape."""
        server, path = self.server, urlsplit(self.path).path
        assert isinstance(server, _Server), "made by another server"
        match path:
            case "/metrics":
                self._answer(200, *server.exposition(self.headers.get("Accept", "")))
            case "/livez":
                self._probe(*server.health.live())
            case "/readyz":
                self._probe(*server.health.ready())
            case _:
                body = json.dumps({"problems": [f"no {path}; try /metrics, /livez or /readyz"]})
                self._answer(404, body.encode(), "application/json")

    do_HEAD = do_GET  # noqa: N815 - the name http.server calls

    @override
    def log_message(self, format: str, *args: object) -> None:
        _log.debug(format, *args)

    def _probe(self, good: bool, problems: list[str]) -> None:
        body = json.dumps({"status": "ok" if good else "failing", "problems": problems})
        self._answer(200 if good else 503, body.encode(), "application/json")

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _explained(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"EVENTBUS_METRICS_PORT={port} is taken on {host}; "
            "set another one, or 0 for any free one"
        )
    return (
        f"can't listen on {host}:{port} for metrics: {error}; "
        "check EVENTBUS_METRICS_HOST and EVENTBUS_METRICS_PORT"
    )
