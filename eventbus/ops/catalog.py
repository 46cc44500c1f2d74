"""The catalog: which events are declared, with their fields, and which listeners take them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_origin

from eventbus.event import Event, spec_of
from eventbus.registry import Registry
from eventbus.service import EventService
from eventbus.subject import matches

__all__ = ("Declared", "Field", "Listening", "catalog", "fields_of")

_MODULES = re.compile(r"\b(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an event's payload."""

    name: str
    """As it stands in the JSON."""
    type: str
    required: bool
    description: str = ""

    def __str__(self) -> str:
        """Return it as it is declared, ``?`` for one that may be left out."""
        return f"{self.name}{'' if self.required else '?'}: {self.type}"


@dataclass(frozen=True, slots=True)
class Listening:
    """A listener that takes an event."""

    service: str
    listener: str
    queue: str
    pattern: str
    """What it is subscribed to."""


@dataclass(frozen=True, slots=True)
class Declared:
    """An event, as its class declares it."""

    name: str
    version: int
    key: str | None
    tags: tuple[str, ...]
    kind: str
    priority: str
    declared_in: str
    description: str
    fields: tuple[Field, ...]
    listeners: tuple[Listening, ...]


def catalog(services: Sequence[EventService]) -> tuple[Declared, ...]:
    """Return every declared event, by name and version, and the listeners that take it.

    Declared are the events of the schema packages, and those that the services' listeners name.

    Raises:
        EventBusError: A schema package can't be read, or two classes claim one event.
    """
    registry = _registry(services)
    listening = [one for service in services for one in _listening(service, registry)]
    return tuple(_declared(event, listening) for event in registry.events())


def _registry(services: Sequence[EventService]) -> Registry:
    registry = EventService("catalog").discover()
    for service in services:
        for one in service.subscriptions:
            for event in one.accepts:
                if event.event_spec is not None:
                    registry.register(event)
    return registry


def fields_of(event: type[Event]) -> tuple[Field, ...]:
    """Return the fields of an event's payload, in the order of their declaration."""
    return tuple(
        Field(
            name=info.alias or name,
            type=_type_name(info.annotation),
            required=info.is_required(),
            description=info.description or "",
        )
        for name, info in event.model_fields.items()
    )


def _declared(event: type[Event], listening: Iterable[Listening]) -> Declared:
    spec = spec_of(event)
    return Declared(
        name=spec.name,
        version=spec.version,
        key=spec.key,
        tags=spec.tags,
        kind=spec.kind,
        priority=spec.priority,
        declared_in=f"{event.__module__}.{event.__qualname__}",
        description=_description(event),
        fields=fields_of(event),
        listeners=tuple(one for one in listening if matches(one.pattern, spec.name)),
    )


def _listening(service: EventService, registry: Registry) -> Iterable[Listening]:
    default = service.settings.default_queue
    for one in service.subscriptions:
        for pattern in one.events or registry.names_of(one.accepts):
            yield Listening(service.name, one.listener, one.queue or default, pattern)


def _description(event: type[Event]) -> str:
    # Its own docstring: a class without one would show that of `Event`.
    documented: Mapping[str, object] = vars(event)
    return str(documented.get("__doc__") or "").strip().partition("\n")[0]


def _type_name(annotation: object) -> str:
    """Return a type as it is written, without its modules."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__
    return _MODULES.sub("", str(annotation))
