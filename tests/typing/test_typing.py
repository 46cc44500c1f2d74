"""mypy and pyright, both strict, accept what users write and refuse what they must not."""

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
API, ERRORS = HERE / "api.py", HERE / "errors.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def mypy(file: Path, cache: Path) -> dict[int, str]:
    """Return what mypy finds wrong, by line."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    options = ["--cache-dir", str(cache), "--no-pretty", "--no-error-summary", str(file)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, check=False, capture_output=True, text=True
    )
    found = re.findall(rf"^.*?{file.name}:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert done.returncode in (0, 1), done.stderr
    assert bool(found) is bool(done.returncode), done.stdout + done.stderr
    return {int(line): problem for line, problem in found}


def pyright(file: Path, folder: Path) -> dict[int, str]:
    """Return what pyright finds wrong, by line."""
    # What users write is neither kept nor used here.
    unused = ("Expression", "CallResult", "Function", "Class", "Variable", "Coroutine")
    config = {
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
        **{f"reportUnused{what}": False for what in unused},
    }
    shutil.copy(file, folder)  # it takes files of its project alone
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    return {
        one["range"]["start"]["line"] + 1: one["message"]
        for one in report["generalDiagnostics"]
        if one["severity"] == "error"
    }


def marked(checker: str) -> dict[int, str]:
    """Return the lines that a checker must refuse, with why."""
    lines = enumerate(ERRORS.read_text().splitlines(), 1)
    marks = ((number, re.search(r"# E(?: (\w+))?: (.*)", line)) for number, line in lines)
    return {number: mark[2] for number, mark in marks if mark and mark[1] in (None, checker)}


@pytest.fixture(params=[mypy, pyright], ids=["mypy", "pyright"])
def checker(request: pytest.FixtureRequest):
    """Give each type checker; skip one that isn't installed."""
    if find_spec(request.param.__name__) is None:
        pytest.skip(f"{request.param.__name__} isn't installed")
    return request.param


def test_what_users_write_is_accepted(checker, tmp_path: Path) -> None:
    assert checker(API, tmp_path) == {}


def test_what_users_must_not_write_is_refused_and_nothing_else(checker, tmp_path: Path) -> None:
    found, expected = checker(ERRORS, tmp_path), marked(checker.__name__)

    accepted = {line: why for line, why in expected.items() if line not in found}
    refused = {line: problem for line, problem in found.items() if line not in expected}
    assert (accepted, refused) == ({}, {})
