"""What is compiled means what its Python files mean."""

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import eventbus

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
    after = HOOK.with_constructors("\n".join(before) + "\n").splitlines()

    functions = [number for number, line in enumerate(before) if line.lstrip().startswith("def ")]

    assert len(after) == len(before)
    assert [after[number] for number in functions] == [before[number] for number in functions]


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
