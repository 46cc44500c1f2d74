"""What `import eventbus` costs: pydantic and the standard library, nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "dotenv",
    "httpx",
    "nats",
    "nkeys",
    "opentelemetry",
    "prometheus_client",
    "pydantic_settings",
    "rich",
    "sqlalchemy",
    "starlette",
    "structlog",
    "typer",
    "uvicorn",
    "yaml",
}


def loaded_by(statement: str, folder: Path) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after a statement."""
    script = f"import sys, json; {statement}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {script}"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(json.loads(done.stdout))


def top(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


def test_importing_the_package_loads_no_transport_telemetry_or_settings(tmp_path: Path) -> None:
    assert top(loaded_by("import eventbus", tmp_path)) & HEAVY == set()


def test_importing_the_package_loads_pydantic_and_the_standard_library_alone(
    tmp_path: Path,
) -> None:
    before = top(loaded_by("import pydantic; pydantic.create_model('A', x=(int, 1))", tmp_path))

    more = top(loaded_by("import eventbus", tmp_path)) - before - {"eventbus"}

    own = {name for name in more if name.startswith("_sysconfigdata")}
    assert more - own - sys.stdlib_module_names == set()


@pytest.mark.parametrize(
    "statement",
    [
        "from eventbus import EventService; EventService('mail')",
        "from eventbus import Event\nclass A(Event, name='a.b'): x: int",
    ],
    ids=["a service", "an event"],
)
def test_declaring_costs_no_more_than_importing(statement: str, tmp_path: Path) -> None:
    script = f"exec({statement!r})"

    assert top(loaded_by(script, tmp_path)) & HEAVY == set()


def test_importing_the_package_changes_nothing_outside_of_it(tmp_path: Path) -> None:
    script = (
        "import os, signal, logging, threading; before = dict(os.environ), "
        "signal.getsignal(signal.SIGTERM), list(logging.root.handlers); import eventbus; "
        "assert before == (dict(os.environ), signal.getsignal(signal.SIGTERM), "
        "list(logging.root.handlers)); assert threading.active_count() == 1"
    )

    loaded_by(script, tmp_path)

    assert list(tmp_path.iterdir()) == []
