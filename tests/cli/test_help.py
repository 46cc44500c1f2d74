"""What the command line does before any command: help, version, completion, a missing extra."""

import os
import subprocess
import sys
from pathlib import Path

from eventbus import __version__
from tests.cli.shell import COMMAND, cli, environment

LOADED = """
import sys
from eventbus.cli import main
sys.argv = ["eventbus", "--help"]
try:
    main()
except SystemExit:
    slow = ("nats", "opentelemetry", "prometheus_client", "pydantic_settings", "structlog")
    print([one for one in slow if one in sys.modules], file=sys.stderr)
"""
NEEDED = """
import asyncio

import pydantic
import rich.console
import typer.main


class Model(pydantic.BaseModel):
    number: int
"""
"""Half of the time that the help takes."""
WITHOUT_TYPER = """
import sys
sys.modules["typer"] = None
from eventbus.cli import main
main()
"""


def python(code: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_the_commands_and_loads_nothing_slow(tmp_path: Path) -> None:
    done = python(LOADED, tmp_path)

    assert all(one in done.stdout for one in ("run", "dev", "demo", "emit", "events"))
    assert done.stderr.strip() == "[]"


def test_help_answers_at_once(tmp_path: Path) -> None:
    took, bare = [], []

    for _ in range(3):
        began = _cpu()
        assert cli("--help", cwd=tmp_path).returncode == 0
        took.append(_cpu() - began)
        began = _cpu()
        assert python(NEEDED, tmp_path).returncode == 0
        bare.append(_cpu() - began)

    # In relation to what it can't do without, on this machine, in processor time.
    assert min(took) < 5 * min(bare)


def _cpu() -> float:
    """Return the processor seconds of the processes that this one started."""
    used = os.times()
    return used.children_user + used.children_system


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    done = cli("--version", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, f"eventbus {__version__}\n")


def test_without_its_extra_the_command_says_what_to_install(tmp_path: Path) -> None:
    done = python(WITHOUT_TYPER, tmp_path)

    assert done.returncode == 2
    assert "pip install 'eventbus[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_command_is_a_wrong_use(tmp_path: Path) -> None:
    done = cli("emmit", cwd=tmp_path)

    assert done.returncode == 2
    assert "emit" in done.stderr


def test_event_names_complete(shop: Path) -> None:
    words = {"COMP_WORDS": "eventbus emit order.pa", "COMP_CWORD": "2"}

    done = subprocess.run(
        COMMAND,
        cwd=shop,
        env=environment(_EVENTBUS_COMPLETE="complete_bash", **words),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ["order.packed"]
