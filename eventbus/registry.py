"""`Registry`: event name and version to class, and the discovery of a ``schemas`` package."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import TypeVar

from eventbus.errors import DeclarationError, IncompatibleSchemaError, UnknownEventError
from eventbus.event import Event, spec_of
from eventbus.subject import matches

__all__ = ("Registry",)

EventT = TypeVar("EventT", bound=Event)


class Registry:
    """The event classes that one service knows.

    Every service has its own; nothing is registered by importing a module.
    """

    def __init__(self) -> None:
        self._classes: dict[str, dict[int, type[Event]]] = {}

    def register(self, event: type[EventT]) -> type[EventT]:
        """Add an event class; adding it again changes nothing. Usable as a decorator.

        Raises:
            DeclarationError: The class has no name.
            IncompatibleSchemaError: Another class has that name and version.
        """
        spec = spec_of(event)
        versions = self._classes.setdefault(spec.name, {})
        known: type[Event] = versions.setdefault(spec.version, event)
        if known is not event:
            raise IncompatibleSchemaError(
                f"'{spec.name}' version {spec.version} is declared twice: by {_where(known)} and "
                f"by {_where(event)}; give one of them another name or version"
            )
        return event

    def discover(self, package: str) -> tuple[type[Event], ...]:
        """Import a package with all its modules and register the events they declare.

        Raises:
            DeclarationError: The package or one of its modules can't be imported.
            IncompatibleSchemaError: Two of the classes claim one name and version.
        """
        return tuple(
            self.register(event) for module in _modules(package) for event in _events(module)
        )

    def resolve(self, name: str, version: int | None = None) -> type[Event]:
        """Return the class to read an event with: that version, the newest where None.

        A version newer than all known is read as the newest known (DESIGN.md section 5).

        Raises:
            UnknownEventError: No such name, or no such version of it.
        """
        versions = self._classes.get(name)
        if versions is None:
            raise UnknownEventError(name=name, known=self.names())
        newest = max(versions)
        if version is None or version > newest:
            return versions[newest]
        if version not in versions:
            raise UnknownEventError(name=name, version=version, known=sorted(versions))
        return versions[version]

    def names(self, pattern: str = ">") -> tuple[str, ...]:
        """Return the known event names that a pattern takes, sorted."""
        return tuple(sorted(name for name in self._classes if matches(pattern, name)))

    def events(self) -> Iterator[type[Event]]:
        """Yield every class, by name and version."""
        for name in self.names():
            for version in sorted(self._classes[name]):
                yield self._classes[name][version]

    def __contains__(self, name: object) -> bool:
        """Tell whether an event of that name is known."""
        return name in self._classes


def _modules(package: str) -> Iterator[ModuleType]:
    try:
        root = importlib.import_module(package)
        yield root
        for info in pkgutil.walk_packages(getattr(root, "__path__", ()), f"{package}."):
            yield importlib.import_module(info.name)
    except ImportError as exc:
        raise DeclarationError(
            f"can't import the events of '{package}': {exc}; run from the folder that holds it, "
            "or set EVENTBUS_SCHEMAS"
        ) from exc


def _events(module: ModuleType) -> Iterator[type[Event]]:
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, Event)
            and value.event_spec is not None
            and value.__module__ == module.__name__
        ):
            yield value


def _where(event: type[Event]) -> str:
    return f"{event.__module__}.{event.__qualname__}"
