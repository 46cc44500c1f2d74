"""One nats-server: its folder, its configuration, its addresses, its life and its faults."""

import asyncio
import atexit
import http.client
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from eventbus.embedded.binary import find_server, require_version, server_version
from eventbus.embedded.process import Process, lock_folder, spawn
from eventbus.errors import ServerStartError

__all__ = ("NatsServer",)

_POLL = 0.002
_TAIL = 4096


class NatsServer:
    """One nats-server process on this machine's loopback.

    It listens on a random port unless `port` says otherwise, has JetStream, and ends with the
    process that started it: at exit everywhere, after a crash or a kill -9 on Linux.
    Use it in ``with``, in ``async with``, or by `start` and `stop`; one owner at a time.
    POSIX only.
    """

    def __init__(
        self,
        *,
        store: str | Path | None = None,
        binary: str | Path | None = None,
        port: int = -1,
        config: str = "",
        jetstream: bool = True,
        sync_interval: str | None = None,
    ) -> None:
        """Remember how to start; touch nothing yet.

        Args:
            store: Folder for streams, configuration and log; made if missing, locked while in
                use, kept by `stop`. Unset: a temporary folder, which `stop` removes.
            binary: The nats-server to run; see `find_server`.
            port: Port for clients; -1 takes a free one.
            config: More nats-server configuration, appended to ours (users, TLS, limits).
            jetstream: Whether the server has JetStream.
            sync_interval: How often JetStream syncs to disk. The server's default (2 minutes)
                survives a killed server but not a power cut; ``"always"`` survives both.
        """
        self._wanted_store = None if store is None else Path(store)
        self._binary = binary
        self._ports = self._wanted_ports = (port, -1)
        self._config = config
        self._jetstream = jetstream
        self._sync_interval = sync_interval
        self._store: Path | None = None
        self._lock: int | None = None
        self._process: Process | None = None
        self._version = ""
        self._url = ""
        self._monitoring_url = ""

    @property
    def url(self) -> str:
        """Where clients connect."""
        return _known(self._url)

    @property
    def monitoring_url(self) -> str:
        """Where the server's HTTP monitoring (``/healthz``, ``/jsz``, ``/varz``) answers."""
        return _known(self._monitoring_url)

    @property
    def version(self) -> str:
        """The version of the binary, like ``"2.15.1"``."""
        return _known(self._version)

    @property
    def store(self) -> Path:
        """The folder in use."""
        if self._store is None:
            raise RuntimeError("nats-server isn't started")
        return self._store

    @property
    def running(self) -> bool:
        """Whether the process lives; a paused one does."""
        return self._process is not None and not self._process.ended.is_set()

    @property
    def log(self) -> str:
        """The last 4 KiB of what the server logged; empty once a temporary folder is removed."""
        return "" if self._store is None else _tail(self._store / "nats-server.log")

    def start(self, timeout: float = 10) -> Self:
        """Start the server and wait until it is healthy, some 30 ms.

        It blocks the calling thread, which may be any. Does nothing if the server runs.

        Raises:
            ServerNotFoundError: There is no binary.
            ServerTooOldError: The binary is older than `MIN_VERSION`.
            ServerStartError: The folder is in use, or the server ended or wasn't healthy
                within `timeout` seconds; the message ends with its log.
        """
        if self.running:
            return self
        binary = find_server(self._binary)
        self._version = server_version(binary)
        require_version(self._version)
        if self._lock is None:
            self._open_store()
        atexit.unregister(self._stop_at_exit)
        atexit.register(self._stop_at_exit, os.getpid())
        try:
            self._launch(binary, timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, timeout: float = 5) -> None:
        """End the server, by force after `timeout` seconds, and remove a temporary folder.

        Calling it again does nothing.
        """
        self._end_process(timeout)
        atexit.unregister(self._stop_at_exit)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._store is not None and self._wanted_store is None:
            shutil.rmtree(self._store, ignore_errors=True)
            self._store = None
        self._url = self._monitoring_url = ""
        self._ports = self._wanted_ports

    def kill(self) -> None:
        """End the server as a crash would (``kill -9``); the folder and `restart` remain."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.ended.wait()

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing answers."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def reload(self, config: str | None = None) -> None:
        """Make the server read its configuration again, with another `config` if given.

        It happens after this returns, and what the server can't change at run time (its log
        tells) needs `restart`.
        """
        if config is not None:
            self._config = config
        self._write_configuration()
        self._signal(signal.SIGHUP)

    def restart(self, timeout: float = 10) -> None:
        """Start it again on the same ports and folder, after stopping it if it still runs.

        Raises:
            ServerStartError: As `start` does; the server is then stopped for good.
        """
        self._ports = _port(self.url), _port(self.monitoring_url)
        self._end_process(5)
        self.start(timeout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        # On the loop's own thread: a cancelled start in another one would leave a server behind.
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)

    def _open_store(self) -> None:
        if self._wanted_store is None:
            store = Path(tempfile.mkdtemp(prefix="eventbus-nats-"))
        else:
            store = self._wanted_store.absolute()
            store.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = lock_folder(store)
        self._store = store

    def _launch(self, binary: Path, timeout: float) -> None:
        for stale in self.store.glob("*.ports"):
            stale.unlink(missing_ok=True)
        assert self._lock is not None, "the folder is locked before the server starts"
        command = [str(binary), "-c", str(self._write_configuration())]
        log = self.store / "nats-server.log"
        self._process = spawn(command, log=log, lock=self._lock)
        self._await_health(self._process, timeout)

    def _write_configuration(self) -> Path:
        path = self.store / "nats-server.conf"
        path.touch(mode=0o600)  # it may hold passwords
        path.write_text(self._configuration())
        return path

    def _configuration(self) -> str:
        lines = [
            f'listen: "127.0.0.1:{self._ports[0]}"',
            f'http: "127.0.0.1:{self._ports[1]}"',
            f"ports_file_dir: {_quoted(self.store)}",
        ]
        if self._jetstream:
            sync = "" if self._sync_interval is None else f", sync_interval: {self._sync_interval}"
            lines.append(f"jetstream: {{ store_dir: {_quoted(self.store)}{sync} }}")
        return "\n".join([*lines, self._config, ""])

    def _await_health(self, process: Process, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._is_healthy(process):
            if process.ended.wait(_POLL):
                problem = f"ended with exit code {process.popen.returncode} before it was ready"
            elif time.monotonic() > deadline:
                problem = f"wasn't ready after {timeout:g} s"
            else:
                continue
            said = self.log.strip() or "nothing"
            raise ServerStartError(
                f"nats-server {problem} (folder '{self.store}'); it logged: {said}"
            )

    def _is_healthy(self, process: Process) -> bool:
        try:
            file = next(self.store.glob(f"*_{process.popen.pid}.ports"))
            ports = json.loads(file.read_text())
            urls: tuple[str, str] = ports["nats"][0], ports["monitoring"][0]
        except (StopIteration, OSError, ValueError, KeyError):
            return False  # not there, or not written to its end yet
        if _status(urls[1], "/healthz?js-enabled-only=true" if self._jetstream else "/healthz"):
            self._url, self._monitoring_url = urls
            return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.popen.send_signal(number)

    def _end_process(self, timeout: float) -> None:
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a frozen process doesn't see the SIGTERM
        if not self._process.ended.wait(timeout):
            self.kill()
        self._process = None

    def _stop_at_exit(self, owner: int) -> None:
        if os.getpid() == owner:  # a forked child inherits the hook, and not the server
            self.stop()


def _status(url: str, path: str) -> bool:
    # Not urllib.request: it would ask the proxy of the environment for our own loopback.
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def _known(value: str) -> str:
    if not value:
        raise RuntimeError("nats-server isn't started")
    return value


def _port(url: str) -> int:
    return urlsplit(url).port or -1


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)
