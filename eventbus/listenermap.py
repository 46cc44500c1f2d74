"""A central map of event names to listeners, as a module of configuration may hold it."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

from eventbus.errors import DeclarationError
from eventbus.eventmap import Binding, EventMap

if TYPE_CHECKING:
    from eventbus.classes import AnyListener
    from eventbus.event import Event
    from eventbus.subscribing import AllOptions

__all__ = ("Entry", "ListenerMap", "bindings", "mapped")

Options: TypeAlias = Mapping[str, object]
Entry: TypeAlias = "str | AnyListener | tuple[str | AnyListener, Options]"
"""A listener, or ``"package.module:function"``, alone or with its options."""
ListenerMap: TypeAlias = Mapping[str, "Entry | Sequence[Entry]"]
"""Event names and patterns, and what listens to each."""


def mapped(place: str, service: str) -> object:
    """Return what ``"package.module:NAME"`` names; ``{service}`` in it is the service's name.

    Raises:
        DeclarationError: There is nothing of that name.
    """
    place = place.replace("{service}", service)
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise DeclarationError(
            f"'{place}' can't be loaded: {exc}; write 'package.module:NAME'"
        ) from exc


def bindings(given: object, service: str) -> Iterator[Binding]:
    """Yield what a map binds: an `EventMap`, or a mapping of names to listeners.

    Raises:
        DeclarationError: It is neither, or an entry makes no sense.
    """
    if isinstance(given, EventMap):
        yield from given
        return
    if not isinstance(given, Mapping):
        raise DeclarationError(f"{given!r} is no map of event names to listeners")
    for event, entries in cast("Mapping[object, object]", given).items():
        several = cast("list[object]", entries) if isinstance(entries, list) else [entries]
        for entry in several:
            yield _binding(event, entry, service)


def _binding(event: object, entry: object, service: str) -> Binding:
    options: object = {}
    if isinstance(entry, tuple):
        parts = cast("tuple[object, ...]", entry)
        if len(parts) != 2 or not isinstance(parts[1], Mapping):
            raise DeclarationError(f"{event!r}: {entry!r} must be (listener, {{options}})")
        entry, options = parts
    handler = mapped(entry, service) if isinstance(entry, str) else entry
    if not callable(handler):
        raise DeclarationError(f"{event!r}: {handler!r} is no listener")
    if not isinstance(event, (str, type)):
        raise DeclarationError(f"{event!r} is no event name, pattern or class")
    return Binding(
        cast("type[Event] | str", event),
        cast("AnyListener", handler),
        cast("AllOptions[Event]", dict(cast("Options", options))),
    )
