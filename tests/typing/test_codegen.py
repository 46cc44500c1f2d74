"""``eventbus codegen types``: an emit by name whose payload both type checkers check."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import PYTHON_PATH, ROOT

SCHEMAS = '''
"""Events of a shop."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Literal

from pydantic import EmailStr, Field, PositiveInt

from eventbus.event import Data, Event


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Line(Data):
    product: str
    quantity: PositiveInt = 1


class OrderCreated(Event, name="order.created", version=2):
    order_id: str
    email: EmailStr
    lines: tuple[Line, ...]
    size: Size | None = None
    placed_at: datetime
    channel: Literal["web", "shop"] = "web"
    notes: dict[str, list[int]] = {}
    class_: Annotated[str, Field(alias="class")] = ""


class OldOrderCreated(Event, name="order.created", version=1):
    order_id: str


class OrderClosed(Event, name="order.closed"):
    order_id: str
'''
USAGE = """
from datetime import UTC, datetime

from schemas import Line, OrderClosed, Size
from typed_events import EventService

events = EventService("shop")


async def accepted() -> None:
    await events.emit("order.closed", {"order_id": "o-1"}, key="k")
    await events.emit(OrderClosed(order_id="o-1"), id="i")
    await events.emit(
        "order.created",
        {
            "order_id": "o-1",
            "email": "ada@example.org",
            "lines": [{"product": "cup"}, Line(product="jug", quantity=2)],
            "size": Size.SMALL,
            "placed_at": datetime.now(UTC),
            "class": "fast",
            "notes": {"a": [1]},
        },
    )


async def refused() -> None:
    await events.emit("order.closed", {"order_ld": "o-1"})  # E
    await events.emit("order.closed", {})  # E
    await events.emit("order.closed", {"order_id": 1})  # E
    await events.emit("order.close", {"order_id": "o-1"})  # E
    await events.emit("order.closed", {"order_id": "o-1"}, kye="k")  # E
    await events.emit("order.created", {"order_id": "o-1"})  # E
"""
LINES = [number for number, line in enumerate(USAGE.splitlines(), 1) if line.endswith("# E")]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "schemas.py").write_text(SCHEMAS)
    (tmp_path / "usage.py").write_text(USAGE)
    return tmp_path


def codegen(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eventbus.cli", "codegen", "types", *arguments]
    env = {**os.environ, "PYTHONPATH": PYTHON_PATH}
    return subprocess.run(
        command, cwd=folder, check=False, capture_output=True, text=True, env=env
    )


def test_check_fails_until_the_module_is_written_and_once_an_event_changes(shop: Path) -> None:
    missing = codegen(shop, "--check")
    written = codegen(shop)
    current = codegen(shop, "--check")
    (shop / "schemas.py").write_text(
        SCHEMAS.replace('channel: Literal["web", ', "channel: Literal[")
    )
    stale = codegen(shop, "--check")

    assert (missing.returncode, written.returncode) == (1, 0)
    assert (current.returncode, stale.returncode) == (0, 1)
    assert "run eventbus codegen types -o typed_events.py" in stale.stderr
    assert written.stdout == "typed_events.py: 3 events\n"


def test_a_project_without_events_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "schemas.py").write_text("")

    done = codegen(tmp_path)

    assert (done.returncode, (tmp_path / "typed_events.py").exists()) == (1, False)
    assert "no event is declared here" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_mypy_checks_the_payload_of_an_emit_by_name(shop: Path) -> None:
    codegen(shop)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "usage.py"]
    done = subprocess.run(
        [*command, "--cache-dir", str(shop / ".mypy_cache"), "--no-pretty"],
        cwd=shop,
        check=False,
        capture_output=True,
        text=True,
    )

    wrong = {
        int(line) for line in re.findall(r"^usage\.py:(\d+): error", done.stdout, re.MULTILINE)
    }
    assert sorted(wrong) == LINES, done.stdout
    assert "typed_events.py" not in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_pyright_checks_the_payload_of_an_emit_by_name(shop: Path) -> None:
    codegen(shop)
    config = {
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
        "include": ["usage.py", "typed_events.py"],
    }
    (shop / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=shop,
        check=False,
        capture_output=True,
        text=True,
    )

    found = json.loads(done.stdout)["generalDiagnostics"]
    wrong = {(Path(one["file"]).name, one["range"]["start"]["line"] + 1) for one in found}
    assert sorted(wrong) == [("usage.py", line) for line in LINES], done.stdout
