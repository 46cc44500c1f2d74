"""Changes to a Python module's source: a class at its end, with imports and ``__all__``."""

import ast
import sys
from collections.abc import Iterable, Mapping, Sequence

from eventbus.errors import ConfigurationError

__all__ = ("Imports", "import_block", "names_in", "with_definition")

WIDTH = 99
BLANK = "\n\n"
Imports = Mapping[str, Iterable[str]]
"""The names to import, by module."""


def import_block(imports: Imports, first_party: Sequence[str]) -> str:
    """Return imports as isort groups them: the standard library, packages, one's own."""
    groups: list[list[str]] = [[], [], []]
    for module in sorted(imports):
        names = imports[module]
        line = _from(module, names) if names else f"import {module}"
        groups[_group(module, first_party)].append(line)
    groups = [sorted(group, key=lambda line: not line.startswith("import")) for group in groups]
    return "\n\n".join("\n".join(group) for group in groups if group)


def names_in(source: str) -> frozenset[str]:
    """Return the classes, functions and imported names at the top of a module."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update(one.asname or one.name for one in node.names)
    return frozenset(names)


def with_definition(
    source: str, name: str, definition: str, imports: Imports, first_party: Sequence[str] = ()
) -> str:
    """Return a module with one more class or function at its end, exported and importable.

    Raises:
        ConfigurationError: Its imports or its ``__all__`` are written in a way that a program
            can't change safely.
    """
    source = _with_imports(source, imports, first_party)
    source = _with_export(source, name)
    statement = not definition.startswith(("class ", "def ", "async ", "@"))
    return f"{source.rstrip()}\n{'' if statement else BLANK}{definition.strip()}\n"


def _with_imports(source: str, imports: Imports, first_party: Sequence[str]) -> str:
    nodes = [one for one in ast.parse(source).body if isinstance(one, ast.Import | ast.ImportFrom)]
    if not nodes:
        return _after_docstring(source, import_block(imports, first_party))
    lines = source.splitlines()
    first, last = nodes[0].lineno - 1, nodes[-1].end_lineno or nodes[-1].lineno
    block = lines[first:last]
    if any("#" in line for line in block) or not all(_is_plain(one) for one in nodes):
        raise ConfigurationError(
            "its imports have comments, aliases or other code between them; add by hand: "
            + import_block(imports, first_party).replace("\n", "; ")
        )
    wanted: dict[str, set[str]] = {module: set(names) for module, names in imports.items()}
    for one in nodes:
        if isinstance(one, ast.ImportFrom):
            wanted.setdefault(one.module or "", set()).update(each.name for each in one.names)
        else:
            wanted.update({each.name: set() for each in one.names})
    lines[first:last] = import_block(wanted, first_party).splitlines()
    return "\n".join(lines) + "\n"


def _is_plain(node: ast.Import | ast.ImportFrom) -> bool:
    relative = isinstance(node, ast.ImportFrom) and node.level > 0
    return not relative and all(one.asname is None for one in node.names)


def _with_export(source: str, name: str) -> str:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            try:
                exported = [*ast.literal_eval(node.value), name]
            except ValueError as exc:
                raise ConfigurationError(
                    f"its __all__ isn't a list of names; add {name!r} by hand"
                ) from exc
            lines = source.splitlines()
            lines[node.lineno - 1 : node.end_lineno] = _exports(exported).splitlines()
            return "\n".join(lines) + "\n"
    return source


def _exports(names: Iterable[str]) -> str:
    listed = [f'"{one}"' for one in sorted(names)]
    flat = f"__all__ = ({', '.join(listed)}{',' if len(listed) == 1 else ''})"
    if len(flat) <= WIDTH:
        return flat
    return "__all__ = (\n" + "".join(f"    {one},\n" for one in listed) + ")"


def _from(module: str, names: Iterable[str]) -> str:
    listed = sorted(set(names), key=_as_isort)
    flat = f"from {module} import {', '.join(listed)}"
    if len(flat) <= WIDTH:
        return flat
    return f"from {module} import (\n" + "".join(f"    {one},\n" for one in listed) + ")"


def _as_isort(name: str) -> tuple[int, str]:
    """Constants first, then classes, then functions."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name


def _group(module: str, first_party: Sequence[str]) -> int:
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return 0
    return 2 if top in first_party else 1


def _after_docstring(source: str, block: str) -> str:
    body = ast.parse(source).body
    documented = body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    at = (body[0].end_lineno or 0) if documented else 0
    lines = source.splitlines()
    return "\n".join([*lines[:at], "", block, *lines[at:]]).lstrip("\n") + "\n"
