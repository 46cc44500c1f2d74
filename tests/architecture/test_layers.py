"""Dependencies point downwards; the contracts are in pyproject.toml."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "eventbus").rglob("*.py"))
CONTRACTS = {"layers", "acyclic", "nats", "pure", "drivers", "repo", "services", "schemas"}


@pytest.mark.slow
def test_every_contract_of_import_linter_is_kept() -> None:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-logo", "--no-cache"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Contracts: {len(contracts())} kept, 0 broken." in done.stdout


def contracts() -> dict[str, dict[str, object]]:
    """Return the contracts by id."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {one["id"]: one for one in config["tool"]["importlinter"]["contracts"]}


def test_the_contracts_that_hold_the_design_together_are_there() -> None:
    assert contracts().keys() >= CONTRACTS
    assert contracts()["layers"]["exhaustive"] is True


def imported(source: Path) -> set[str]:
    """Return the full names of the modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return names


def test_imports_are_absolute() -> None:
    relative = [str(source) for source in SOURCES if any(n[0] == "." for n in imported(source))]

    assert relative == []


def test_nats_is_imported_in_the_jetstream_driver_alone() -> None:
    # import-linter sees imports of modules; this also sees those in functions and strings of code.
    driver = ROOT / "eventbus" / "drivers" / "jetstream"

    users = {
        source
        for source in SOURCES
        if any(name.split(".")[0] in ("nats", "nkeys") for name in imported(source))
    }

    assert users
    assert [str(source) for source in users if driver not in source.parents] == []


def test_no_library_code_reads_an_implementation_detail_of_another_package() -> None:
    private = {
        f"{source.relative_to(ROOT)}: {name}"
        for source in SOURCES
        for name in imported(source)
        if any(part.startswith("_") and part != "__future__" for part in name.split("."))
    }

    assert private == set()


def test_every_module_says_in_one_sentence_what_it_is_for() -> None:
    without = [
        str(source.relative_to(ROOT))
        for source in SOURCES
        if source.read_text().strip() and not ast.get_docstring(ast.parse(source.read_text()))
    ]

    assert without == []
