"""`Registry`: event name and version to class and upcasts, and the discovery of ``schemas``."""

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from eventbus.errors import (
    DeclarationError,
    IncompatibleSchemaError,
    UnknownEventError,
    did_you_mean,
)
from eventbus.event import Event, spec_of
from eventbus.subject import matches
from eventbus.upcast import Upcast

__all__ = ("Reading", "Registry")

EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a message of some version is read."""

    event: type[Event]
    """The class that it becomes."""
    version: int
    """The version of that class."""
    steps: tuple[Upcast, ...] = ()
    """The upcasts from its version to that one, in their order."""


class Registry:
    """The event classes that one service knows.

    Every service has its own; nothing is registered by importing a module.
    """

    def __init__(self) -> None:
        self._classes: dict[str, dict[int, type[Event]]] = {}
        self._upcasts: dict[str, dict[int, Upcast]] = {}
        self._readings: dict[tuple[str, int, tuple[type[Event], ...]], Reading] = {}
        self.changes = 0
        """Grows with each class and upcast; who remembers how to read an event has to look."""

    def register(self, event: type[EventT]) -> type[EventT]:
        """Add an event class, and the upcasts in its module that lead up to it.

        Adding it again changes nothing. Usable as a decorator.

        Raises:
            DeclarationError: The class has no name.
            IncompatibleSchemaError: Another class has that name and version, or two upcasts begin
                at one version.
        """
        spec = spec_of(event)
        versions = self._classes.setdefault(spec.name, {})
        known: type[Event] = versions.setdefault(spec.version, event)
        if known is not event:
            raise IncompatibleSchemaError(
                f"'{spec.name}' version {spec.version} is declared twice: by {_where(known)} and "
                f"by {_where(event)}; give one of them another name or version"
            )
        self._readings.clear()
        self.changes += 1
        for one in _upcasts(sys.modules.get(event.__module__)):
            if one.name == spec.name and one.to_version <= spec.version:
                self.register_upcast(one)
        return event

    def register_upcast(self, one: Upcast) -> Upcast:
        """Add an upcast; adding it again changes nothing.

        Raises:
            IncompatibleSchemaError: Another one begins at that version of the event.
        """
        steps = self._upcasts.setdefault(one.name, {})
        if steps.setdefault(one.from_version, one) is not one:
            raise IncompatibleSchemaError(
                f"two upcasts of '{one.name}' begin at version {one.from_version}; "
                "keep one of them, so that there is one way to the newest version"
            )
        self._readings.clear()
        self.changes += 1
        return one

    def discover(self, package: str) -> tuple[type[Event], ...]:
        """Import a package with all its modules; register the events and upcasts they declare.

        Raises:
            DeclarationError: The package or one of its modules can't be imported.
            IncompatibleSchemaError: Two of the classes claim one name and version.
        """
        found: list[type[Event]] = []
        for module in _modules(package):
            found.extend(self.register(event) for event in _events(module))
            for one in _upcasts(module):
                self.register_upcast(one)
        return tuple(found)

    def resolve(self, name: str, version: int | None = None) -> type[Event]:
        """Return the class to read an event with: that version, the newest where None.

        A version newer than all known is read as the newest known.

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

    def reading(
        self, name: str, version: int | None = None, accepts: tuple[type[Event], ...] = (Event,)
    ) -> Reading:
        """Return how to read a version for who takes some classes.

        A version that is taken by its very class is read as it. An older one goes through the
        upcasts, up to the newest version that is taken. A newer one is read as that version,
        tolerantly. Where nothing leads to a version that is taken, it is read as it is declared,
        and the caller has to refuse it.

        Raises:
            UnknownEventError: No such name, or no such version of it.
        """
        versions = self._classes.get(name)
        if versions is None:
            raise UnknownEventError(name=name, known=self.names())
        newest = max(versions)
        # Versions come from outside: what is remembered must not grow with them.
        version = newest if version is None or version > newest else version
        found = self._readings.get((name, version, accepts))
        if found is None:
            found = self._reading(name, version, accepts)
            self._readings[name, version, accepts] = found
        return found

    def _reading(self, name: str, version: int, accepts: tuple[type[Event], ...]) -> Reading:
        versions = self._classes[name]
        if versions.get(version) in accepts:
            return Reading(versions[version], version)
        taken = [number for number, event in versions.items() if issubclass(event, accepts)]
        target = max(taken or versions)
        if version >= target:
            return Reading(versions[target], target)
        steps = tuple(self._way(name, version, target))
        for end in range(len(steps), 0, -1):
            reached = steps[end - 1].to_version
            if reached in taken:
                return Reading(versions[reached], reached, steps[:end])
        if version not in versions:
            raise UnknownEventError(name=name, version=version, known=sorted(versions))
        return Reading(versions[version], version)

    def _way(self, name: str, version: int, last: int) -> Iterator[Upcast]:
        """Yield the upcasts that follow one another from a version, none of them past ``last``."""
        steps = self._upcasts.get(name, {})
        while (step := steps.get(version)) is not None and step.to_version <= last:
            yield step
            version = step.to_version

    def unreadable(self, name: str, accepts: tuple[type[Event], ...]) -> tuple[int, ...]:
        """Return the declared versions of an event that can't be read as one of some classes."""
        return tuple(
            version
            for version in sorted(self._classes.get(name, ()))
            if not issubclass(self.reading(name, version, accepts).event, accepts)
        )

    def check(self) -> None:
        """Check that each chain of upcasts leads to the newest version of a declared event.

        Raises:
            DeclarationError: One doesn't; the message names the upcast and the gap.
        """
        for name, steps in self._upcasts.items():
            versions = self._classes.get(name)
            if versions is None:
                (one, *_) = steps.values()
                hint = did_you_mean(name, self._classes)
                raise DeclarationError(f"{one}: no event '{name}' is declared{hint}")
            _check_chains(steps, versions)

    def names(self, pattern: str = ">") -> tuple[str, ...]:
        """Return the known event names that a pattern takes, sorted."""
        return tuple(sorted(name for name in self._classes if matches(pattern, name)))

    def names_of(self, accepts: tuple[type[Event], ...]) -> tuple[str, ...]:
        """Return the known event names of which a version is one of some classes, sorted."""
        return tuple(
            name
            for name in self.names()
            if any(issubclass(one, accepts) for one in self._classes[name].values())
        )

    def events(self) -> Iterator[type[Event]]:
        """Yield every class, by name and version."""
        for name in self.names():
            for version in sorted(self._classes[name]):
                yield self._classes[name][version]

    def __contains__(self, name: object) -> bool:
        """Tell whether an event of that name is known."""
        return name in self._classes


def _check_chains(steps: Mapping[int, Upcast], versions: Mapping[int, type[Event]]) -> None:
    newest = max(versions)
    for one in steps.values():
        if one.to_version in steps or one.to_version == newest:
            continue
        if one.to_version > newest:
            raise DeclarationError(
                f"{one} is never reached: version {newest} is the newest that a class declares; "
                f"declare version {one.to_version}, or remove the upcast"
            )
        raise DeclarationError(
            f"{one} leads nowhere: nothing goes on from version {one.to_version} to {newest}, the "
            f'newest; add @upcast("{one.name}", from_version={one.to_version})'
        )


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


def _upcasts(module: ModuleType | None) -> Iterator[Upcast]:
    for value in vars(module).values() if module is not None else ():
        if isinstance(value, Upcast):
            yield value


def _where(event: type[Event]) -> str:
    return f"{event.__module__}.{event.__qualname__}"
