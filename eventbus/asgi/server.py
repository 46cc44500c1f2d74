"""`HttpServer`: serves an application for as long as its service runs."""

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING

from eventbus.asgi.app import ASGIApp, require_http
from eventbus.errors import ConfigurationError, SettingsError
from eventbus.service import EventService

if TYPE_CHECKING:
    import uvicorn

__all__ = ("HttpServer",)

_RESERVE = 3
"""Seconds of the grace period that requests leave to the rest of the service."""


class HttpServer:
    """Serves an application on the service's ``http_host`` and ``http_port`` while it runs.

    ::

        events = EventService("user")
        http = HttpServer(events, app)

    It listens once the service has started, and then prints ``<service> http <url>``. At a stop
    it takes no more requests, and those that run may finish within the grace period. A port that
    is taken ends the service with a `SettingsError`. It installs no signal handlers; those are
    the process's affair.
    """

    def __init__(self, events: EventService, app: ASGIApp) -> None:
        self._events = events
        self._app = app
        self._socket: socket.socket | None = None
        self._problem: Exception | None = None
        self._decided = asyncio.Event()
        events.background(self)

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            RuntimeError: It doesn't listen; await `started`.
        """
        if self._socket is None:
            raise RuntimeError(f"'{self._events.name}' doesn't listen; await started() first")
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where it answers, as a client on this machine says it."""
        host = self._events.settings.http_host
        # Everywhere isn't an address to connect to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def started(self) -> None:
        """Wait until it listens.

        Raises:
            SettingsError: It can't, since the port is taken or the host isn't this machine's.
            ConfigurationError: uvicorn isn't installed, or the application's lifespan failed.
        """
        await self._decided.wait()
        if self._problem is not None:
            raise self._problem

    async def __call__(self) -> None:
        """Serve until cancelled; the service calls it."""
        self._problem = None
        self._decided.clear()
        try:
            await self._serve()
        except Exception as exc:
            self._problem = exc
            self._decided.set()
            raise

    async def _serve(self) -> None:
        server, listening = self._server(), self._listen()
        try:
            # Not `server.serve`: it installs signal handlers, and cancelled it drops requests.
            await _start_up(server, listening)
            self._socket = listening
            sys.stdout.write(f"{self._events.name} http {self.url}\n")
            sys.stdout.flush()
            self._decided.set()
            await server.main_loop()
        finally:
            self._socket = None
            self._decided.clear()
            await _shut_down(server, listening)

    def _listen(self) -> socket.socket:
        settings = self._events.settings
        host, port = settings.http_host, settings.http_port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=2048)
        except OSError as exc:
            # A system error's own text repeats the address; a host that isn't found has no other.
            problem = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror
            raise SettingsError(
                f"service '{self._events.name}' can't listen on {host}:{port} ({problem}); "
                "set EVENTBUS_HTTP_HOST and EVENTBUS_HTTP_PORT, port 0 takes any free one"
            ) from exc

    def _server(self) -> "uvicorn.Server":
        require_http()
        import uvicorn

        config = uvicorn.Config(
            self._app,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, int(self._events.settings.grace) - _RESERVE),
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        return server


async def _start_up(server: "uvicorn.Server", listening: socket.socket) -> None:
    problem = "the application's lifespan failed; the log says how"
    try:
        await server.startup(sockets=[listening])
    except SystemExit as exc:  # how newer versions of uvicorn say it
        raise ConfigurationError(problem) from exc
    if not server.started:  # and how older ones do
        raise ConfigurationError(problem)


async def _shut_down(server: "uvicorn.Server", listening: socket.socket) -> None:
    if server.started:
        await server.shutdown(sockets=[listening])
    listening.close()
