"""What is compiled means what its Python files mean."""

import ast
import copy
import dataclasses
import importlib
import importlib.util
import inspect
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import mypyc
import pytest

import eventbus
from eventbus.drivers.receipt import Receipt
from tests.cli.shell import environment

ROOT = Path(__file__).parents[2]


def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = hook()
NAMES = tuple(f"eventbus.{one}" for one in HOOK.COMPILED.split())


def source_of(name: str) -> str:
    return (ROOT / f"{name.replace('.', '/')}.py").read_text()


def written(source: str) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Yield the classes whose constructor is written out, and its `shape`."""
    for one in ast.parse(source).body:
        if not isinstance(one, ast.ClassDef):
            continue
        if any("init=False" in ast.unparse(each) for each in one.decorator_list):
            (init,) = (each for each in one.body if getattr(each, "name", "") == "__init__")
            assert isinstance(init, ast.FunctionDef)
            must = len(init.args.args) - len(init.args.defaults)
            yield one.name, [(each.arg, at >= must) for at, each in enumerate(init.args.args)]


def shape(record: type) -> list[tuple[str, bool]]:
    """Return the parameters of its constructor, and which of them may be left out."""
    missing = dataclasses.MISSING
    return [
        ("self", False),
        *(
            (one.name, one.default is not missing or one.default_factory is not missing)
            for one in dataclasses.fields(record)
        ),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_constructor_takes_what_the_dataclass_does(name: str) -> None:
    module = importlib.import_module(name)

    for owner, found in written(HOOK.with_constructors(source_of(name))):
        assert found == shape(getattr(module, owner))


@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_line_has_the_number_that_it_has_in_its_file(name: str) -> None:
    before = source_of(name).splitlines()
    after = HOOK.written_out("\n".join(before) + "\n").splitlines()

    functions = [number for number, line in enumerate(before) if line.lstrip().startswith("def ")]

    assert [after[number] for number in functions] == [before[number] for number in functions]


SUSPENDS = ast.Await | ast.Yield | ast.YieldFrom | ast.AsyncWith | ast.AsyncFor
QUICK = ("asyncio.timeout", "asyncio.timeout_at", "self._outside.topology.turn")
"""What ends without a wait where its block has raised."""
HELD = {"run": "self._group"}
"""`Lot.run` is awaited by `Emitting.emit_many`, which isn't compiled and holds the exception."""


def parts(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield all that runs with these nodes, without the functions they define."""
    for node in nodes:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from parts(ast.iter_child_nodes(node))


def suspended(function: ast.AST) -> Iterator[str]:
    """Yield where a function may be suspended while it handles an exception."""
    for node in parts(ast.iter_child_nodes(function)):
        if isinstance(node, ast.Try):
            handled = [*(one for each in node.handlers for one in each.body), *node.finalbody]
            yield from (ast.unparse(one) for one in parts(handled) if isinstance(one, SUSPENDS))
        elif isinstance(node, ast.AsyncWith) and any(
            isinstance(one, SUSPENDS) for one in parts(node.body)
        ):
            entered = [ast.unparse(one.context_expr) for one in node.items]
            quick = all(one.startswith(QUICK) for one in entered)
            if not quick and entered != [HELD.get(getattr(function, "name", ""))]:
                yield from entered


@pytest.mark.parametrize("name", NAMES)
def test_compiled_code_does_not_wait_while_it_handles_an_exception(name: str) -> None:
    # mypyc keeps what is handled in the thread and not with the coroutine: after the wait a
    # `raise`, a `finally` or the end of an `async with` would raise what another task handles.
    functions = [
        one
        for one in ast.walk(ast.parse(source_of(name)))
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert [(one.name, where) for one in functions for where in suspended(one)] == []


def test_what_is_replaced_in_the_runtime_of_mypyc_is_there() -> None:
    runtime = Path(str(mypyc.__file__)).parent / "lib-rt" / "misc_ops.c"

    assert runtime.read_text().count(HOOK.THROW[0]) == 1


def test_no_class_in_python_inherits_from_a_compiled_one() -> None:
    for one in pkgutil.walk_packages(eventbus.__path__, "eventbus."):
        module = importlib.import_module(one.name)
        if one.name in NAMES:
            continue

        own = [each for each in vars(module).values() if inspect.isclass(each)]
        bases = {
            base.__module__
            for each in own
            if each.__module__ == one.name
            for base in each.__mro__[1:]
        }

        assert not bases & set(NAMES), f"add {one.name} to COMPILED"


def test_all_that_is_named_is_compiled_or_nothing() -> None:
    files = [Path(str(importlib.import_module(name).__file__)) for name in NAMES]

    assert len({file.suffix for file in files}) == 1


def test_a_compiled_record_is_copied_and_pickled() -> None:
    receipt = Receipt("id-1", "EVENTS", 7, driver="jetstream")

    copies = (copy.copy(receipt), copy.deepcopy(receipt), pickle.loads(pickle.dumps(receipt)))

    assert copies == (receipt, receipt, receipt)


def test_a_process_that_a_test_starts_runs_the_package_under_test() -> None:
    code = "import eventbus.emission; print(eventbus.emission.__file__)"
    command = [sys.executable, "-c", code]

    told = subprocess.check_output(command, env=environment(), cwd=ROOT / "tests", text=True)

    assert told.strip() == importlib.import_module("eventbus.emission").__file__
