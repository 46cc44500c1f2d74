"""Writes what was made: all of it or, where something is there already, nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eventbus.cli.make.module import Imports, import_block, names_in, with_definition
from eventbus.errors import ConfigurationError

__all__ = ("Change", "schemas_package", "write")


@dataclass(frozen=True, slots=True)
class Change:
    """Code for one file."""

    path: Path
    """Relative to the working directory."""
    new: str
    """The file's beginning where there is none yet."""
    definition: str
    imports: Imports = field(default_factory=dict[str, list[str]])
    name: str | None = None
    """The class or function to add to a file that is there; without one, it must not be there."""

    def source(self, own: Sequence[str]) -> str:
        """Return the file's content with the change; ``own`` are packages that come last.

        Raises:
            ConfigurationError: The file, or the name in it, is there; nothing is overwritten.
        """
        if self.name is None:
            if self.path.exists():
                raise ConfigurationError(
                    f"{self.path} is there already; remove it, or choose another name"
                )
            block = import_block(self.imports, own)
            return f"{self.new}\n{block}\n\n{self.definition}"
        before = self.path.read_text() if self.path.exists() else self.new
        if self.name in names_in(before):
            raise ConfigurationError(
                f"{self.path} has a {self.name} already; change it there, or choose another name"
            )
        try:
            return with_definition(before, self.name, self.definition, self.imports, own)
        except ConfigurationError as exc:
            raise ConfigurationError(f"{self.path}: {exc}") from exc


def write(*changes: Change, packages: Mapping[Path, str]) -> list[Path]:
    """Make the changes and return the files that are new or changed.

    Args:
        changes: What to write.
        packages: Folders that must be packages, with the docstring of a new one.

    Raises:
        ConfigurationError: One of them can't be made; then none is.
    """
    made = [*packages, *(one.path.parent for one in changes if one.path.name == "__init__.py")]
    own = (*_packages(), *(folder.parts[0] for folder in made))
    sources = {one.path: one.source(own) for one in changes}
    for folder, says in packages.items():
        init = folder / "__init__.py"
        if not init.exists():
            sources[init] = f'"""{says}"""\n'
    for path, source in sources.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return sorted(sources)


def schemas_package() -> str:
    """Return the package that new events go to: the first of ``EVENTBUS_SCHEMAS``."""
    from eventbus.settings import Settings

    return Settings.load().schemas[0]


def _packages() -> tuple[str, ...]:
    """Return the packages of the working directory."""
    return tuple(sorted(one.parent.name for one in Path.cwd().glob("*/__init__.py")))
