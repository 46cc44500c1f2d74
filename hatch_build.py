"""Compiles the modules that every event goes through, with mypyc, into a wheel of this platform.

Off unless asked for: ``HATCH_BUILD_HOOKS_ENABLE=1 pip wheel .`` (docs/adr/0018-compiled.md).
"""

import ast
import os
import shutil
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "eventbus"
COMPILED = """
    codec correlation delivery driving emission envelope enveloping glance headers ids
    immediate judging lot owner pipeline records routing shortcut subject subscription telling
    stores.base template unresolved wiring
    drivers.pipelined drivers.plain drivers.receipt drivers.sync
    drivers.jetstream.acks drivers.jetstream.checks drivers.jetstream.connection drivers.jetstream.consumer
    drivers.jetstream.frame drivers.jetstream.lane drivers.jetstream.link
    drivers.jetstream.message drivers.jetstream.pinned drivers.jetstream.pipe drivers.jetstream.progress
    drivers.jetstream.publisher
    telemetry.bundles telemetry.metrics telemetry.multiprocess telemetry.quickspan
    telemetry.signals telemetry.spans telemetry.tallies
    worker.flow worker.heartbeat worker.ordered worker.pump worker.replay
"""
"""What an event goes through on its usual way; the rest of the package stays Python."""

THROW = "_m, type, value, traceback, NULL", "_m, value, NULL"
"""How mypyc hands an exception on to what is awaited; Python 3.12 and later warn of the first."""


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled modules to a wheel, beside their Python files, which then aren't run.

    An editable installation has none.
    """

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, object]) -> None:
        """Compile, and have the wheel say for which Python and platform it is."""
        if version != "standard":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="eventbus-")
        built = compiled(Path(self.root), Path(self._folder.name))
        build_data["force_include"] = {str(file): str(place) for file, place in built}
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, _: dict[str, object], __: str) -> None:
        """Remove what was only needed for it."""
        if version == "standard":
            self._folder.cleanup()


def compiled(root: Path, folder: Path) -> list[tuple[Path, Path]]:
    """Compile in a folder; return the libraries, and where each belongs in the wheel."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    shutil.copytree(root / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("*.so"))
    # What is compiled is checked; extras of the rest needn't be installed.
    (folder / "mypy.ini").write_text(
        "[mypy]\nplugins = pydantic.mypy\nignore_missing_imports = True\nfollow_imports = silent\n"
    )
    files = [f"{PACKAGE}/{name.replace('.', '/')}.py" for name in COMPILED.split()]
    for file in files:
        (folder / file).write_text(written_out((folder / file).read_text()))
    before = Path.cwd()
    os.chdir(folder)
    try:
        extensions = mypycify(
            ["--config-file", "mypy.ini", *files],
            opt_level="3",
            multi_file=True,
            group_name=PACKAGE,
            target_dir="c",
        )
        runtime = Path("c/misc_ops.c")
        runtime.write_text(runtime.read_text().replace(*THROW))
        build = build_ext(Distribution({"name": PACKAGE, "ext_modules": extensions}))
        build.build_lib, build.build_temp, build.parallel = "lib", "objects", os.cpu_count() or 1
        build.ensure_finalized()
        build.run()
    finally:
        os.chdir(before)
    lib = folder / "lib"
    return [(file, file.relative_to(lib)) for file in lib.rglob("*") if file.is_file()]


def with_constructors(source: str) -> str:
    """Write out the constructors of dataclasses, which mypyc then compiles like any other.

    It knows neither slots nor our `eventbus.record.quick`, and what `dataclasses` makes at import
    stays interpreted. The classes keep their fields, and frozen ones stay frozen: a compiled
    constructor sets the fields where they are.
    """
    lines, body = source.splitlines(), ast.parse(source).body
    for found in body:
        if isinstance(found, ast.ClassDef) and not found.bases and _is_dataclass(found):
            _write_constructor(lines, found)
    # The types of fields are looked up in the module, those that are built in too.
    lines[body[1].lineno - 1] = f"from builtins import Exception; {lines[body[1].lineno - 1]}"
    return "\n".join(lines) + "\n"


def written_out(source: str) -> str:
    """Write out what mypyc doesn't compile; all else stays on its line, for tracebacks."""
    return with_causes(with_copies(with_constructors(source)))


def with_copies(source: str) -> str:
    """Have instances of dataclasses copied and pickled.

    `copy` and `pickle` begin with an object that has no fields; a compiled class makes none.
    """
    found = [one for one in ast.parse(source).body if isinstance(one, ast.ClassDef)]
    names = [one.name for one in found if not one.bases and _is_dataclass(one)]
    return source + _COPIES + "".join(f"_copyreg.pickle({one}, _taken_apart)\n" for one in names)


_COPIES = """
import copyreg as _copyreg
from dataclasses import fields as _fields
from typing import Any as _Any

def _taken_apart(one: _Any) -> tuple[_Any, ...]:
    return type(one), tuple(getattr(one, each.name) for each in _fields(one))

"""


def with_causes(source: str) -> str:
    """Have what is raised ``from`` an error say so, which mypyc leaves out."""
    lines = source.splitlines()
    for one in ast.walk(ast.parse(source)):
        if isinstance(one, ast.Raise) and one.exc is not None and one.cause is not None:
            said = f"raise _from({ast.unparse(one.exc)}, {ast.unparse(one.cause)})"
            end = one.end_lineno or one.lineno
            lines[one.lineno - 1 : end] = [" " * one.col_offset + said] + [""] * (end - one.lineno)
    return "\n".join(lines) + _CAUSES


_CAUSES = """

def _from(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error
"""


def _is_dataclass(found: ast.ClassDef) -> bool:
    names = {ast.unparse(one).partition("(")[0] for one in found.decorator_list}
    return "dataclass" in names and names <= {"dataclass", "quick"}


def _write_constructor(lines: list[str], found: ast.ClassDef) -> None:
    """Have one line of the two before the class, and that of ``@quick``, make room for it."""
    fields = [one for one in found.body if isinstance(one, ast.AnnAssign)]
    frozen = any("frozen=True" in ast.unparse(one) for one in found.decorator_list)
    first, doc = min(one.lineno for one in found.decorator_list), found.body[0]
    assert doc.end_lineno is not None, "parsed from a file"
    sets = [f"self.{_name(one)} = {_value(one)}" for one in fields]
    if any(isinstance(one, ast.FunctionDef) and one.name == "__post_init__" for one in found.body):
        sets.append("self.__post_init__()")
    head = [
        f"@dataclass(init=False, frozen={frozen})",
        *lines[found.lineno - 1 : doc.end_lineno],
        f"    def __init__(self, {', '.join(map(_parameter, fields))}) -> None: "
        + ("; ".join(sets) or "pass")
        + "  # type: ignore[misc]",
    ]
    room = doc.end_lineno - first + 2
    lines[first - 2 : doc.end_lineno] = [""] * (room - len(head)) + head


def _name(field: ast.AnnAssign) -> str:
    return ast.unparse(field.target)


def _parameter(field: ast.AnnAssign) -> str:
    name, kind = _name(field), ast.unparse(field.annotation)
    given = _given(field)
    if given is None:
        return f"{name}: {kind}"
    if "default_factory" in given:
        return f"{name}: {kind} | None = None"
    return f"{name}: {kind} = {ast.unparse(given['default'])}"


def _value(field: ast.AnnAssign) -> str:
    name, given = _name(field), _given(field)
    if given is None or "default_factory" not in given:
        return name
    return f"({ast.unparse(given['default_factory'])})() if {name} is None else {name}"


def _given(field: ast.AnnAssign) -> dict[str, ast.expr] | None:
    """Return a field's default or the function that makes it; None where it has neither."""
    value = field.value
    if value is None:
        return None
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "field"):
        return {"default": value}
    said = {one.arg: one.value for one in value.keywords if one.arg is not None}
    return said if said.keys() & {"default", "default_factory"} else None
