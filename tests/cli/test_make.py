"""``eventbus make``: what it writes passes this project's own checks, and nothing is overwritten."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eventbus.cli.make.module import with_definition
from eventbus.errors import ConfigurationError
from tests.cli.shell import cli
from tests.paths import ROOT

CONFIG = str(ROOT / "pyproject.toml")


def tool(folder: Path, *command: str) -> str:
    """Run a checker on what was written; return what it says, or nothing where all is well."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env=env,
    )
    return done.stdout + done.stderr if done.returncode else ""


def checked(folder: Path) -> str:
    return (
        tool(folder, "ruff", "check", "--quiet", "--config", CONFIG, "--no-cache", ".")
        + tool(folder, "ruff", "format", "--diff", "--config", CONFIG, "--no-cache", ".")
        + tool(
            folder,
            "mypy",
            "--strict",
            "--config-file",
            "",
            "--no-incremental",
            *sorted({"schemas", "listeners", "drivers"} & set(os.listdir(folder))),
        )
        + tool(folder, "pytest", "-q", "-o", "asyncio_mode=auto", "--rootdir", ".", "tests")
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_events_are_written_with_tests_that_pass_every_check(tmp_path: Path) -> None:
    fields = ("--field", "email:EmailStr", "--field", "user_id:str", "--field", "tags:str[]")
    first = cli("make", "event", "user.registered", *fields, cwd=tmp_path)
    second = cli("make", "event", "UserBanned", "--field", "until:datetime?", cwd=tmp_path)
    third = cli("make", "event", "order.line.added", cwd=tmp_path)

    assert [one.returncode for one in (first, second, third)] == [0, 0, 0]
    assert second.stdout.splitlines() == ["schemas/user.py", "tests/schemas/test_user_banned.py"]
    written = (tmp_path / "schemas" / "user.py").read_text()
    assert '__all__ = ("UserBanned", "UserRegistered")' in written
    assert 'class UserRegistered(Event, name="user.registered", key="user_id"):' in written
    assert 'class UserBanned(Event, name="user.banned"):' in written
    assert checked(tmp_path) == ""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_listeners_and_drivers_are_written_with_tests_that_pass_every_check(
    tmp_path: Path,
) -> None:
    cli("make", "event", "order.processed", cwd=tmp_path)
    for_order = ("--event", "order.processed")
    first = cli("make", "listener", "SendConfirmation", *for_order, "--queued", cwd=tmp_path)
    second = cli("make", "listener", "NoteOrder", *for_order, cwd=tmp_path)
    third = cli("make", "driver", "SpoolDriver", cwd=tmp_path)

    assert [one.returncode for one in (first, second, third)] == [0, 0, 0]
    assert first.stdout.splitlines() == [
        "listeners/__init__.py",
        "listeners/send_confirmation.py",
        "tests/listeners/test_send_confirmation.py",
    ]
    bindings = (tmp_path / "listeners" / "__init__.py").read_text()
    assert "event_map.bind(OrderProcessed, SendConfirmation)" in bindings
    assert "event_map.bind(OrderProcessed, NoteOrder)" in bindings
    assert 'spool = "drivers.spool:make_spool"' in third.stdout
    assert checked(tmp_path) == ""


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    cli("make", "event", "user.registered", cwd=tmp_path)
    before = {path: path.read_text() for path in tmp_path.rglob("*.py")}

    again = cli("make", "event", "UserRegistered", cwd=tmp_path)
    (tmp_path / "tests" / "schemas" / "test_user_banned.py").write_text("# mine")
    beside = cli("make", "event", "user.banned", cwd=tmp_path)

    assert (again.returncode, beside.returncode) == (2, 2)
    assert "schemas/user.py has a UserRegistered already" in again.stderr
    assert "test_user_banned.py is there already" in beside.stderr
    assert {path: path.read_text() for path in before} == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["registered"], "isn't an event name"),
        (["User.Registered"], "isn't an event name"),
        (["user.registered", "--field", "email"], "isn't NAME:TYPE"),
        (["user.registered", "--field", "email:EmailStrr"], "did you mean 'EmailStr'?"),
        (["user.registered", "--field", "a:str", "--key", "b"], "isn't one of its fields"),
    ],
)
def test_what_cant_be_made_is_named_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], problem: str
) -> None:
    done = cli("make", "event", *arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert problem in done.stderr
    assert not list(tmp_path.rglob("*.py"))


def test_a_listener_of_an_event_that_isnt_declared_is_refused(tmp_path: Path) -> None:
    cli("make", "event", "order.processed", cwd=tmp_path)

    unknown = cli("make", "listener", "Send", "--event", "order.procesed", cwd=tmp_path)
    unnamed = cli("make", "driver", "spool", cwd=tmp_path)

    assert (unknown.returncode, unnamed.returncode) == (2, 2)
    assert "did you mean 'order.processed'?" in unknown.stderr
    assert "write SpoolDriver" in unnamed.stderr


@pytest.mark.parametrize(
    "source", ["from a import b as c\n", "from a import b  # why\n", "__all__ = names()\n"]
)
def test_a_module_that_cant_be_changed_safely_is_left_alone(source: str) -> None:
    with pytest.raises(ConfigurationError, match="by hand"):
        with_definition(source, "C", "class C: ...", {"x": ["y"]})
