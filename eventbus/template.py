"""`Template`: what an emit asks of the class of its event, looked up once for each class."""

from typing import Final

from eventbus.event import METADATA, Event, EventSpec

__all__ = ("Template", "template_of")

_KEPT: Final = 1024


class Template:
    """What all events of a class have alike. A class of pydantic is asked slowly."""

    __slots__ = ("_goes_along", "_is_plain", "_key", "spec")

    def __init__(self, event: type[Event]) -> None:
        spec: EventSpec | None = event.event_spec
        self.spec = spec
        """What the class declares; None where that is only a base, or said by each event."""
        self._is_plain = spec is not None and spec.kind != "state"
        self._goes_along = self._is_plain and spec is not None and spec.driver is None
        own = spec is not None and event.event_key is Event.event_key
        self._key = spec.key if own and spec is not None else None
        """The field that `Event.event_key` reads."""

    def is_plain(self, event: Event) -> bool:
        """Tell whether an event without options needs none of what its envelope may have."""
        return self._is_plain and METADATA not in event.__dict__

    def goes_along(self, event: Event) -> bool:
        """Tell whether an event goes to the service's own driver like any other."""
        if self._goes_along:
            return True
        spec = event.event_spec
        return spec is None or (spec.driver is None and spec.kind != "state")

    def key_of(self, event: Event) -> object:
        """Return what `Event.event_key` does."""
        if self._key is not None:
            value: object = getattr(event, self._key)
            if type(value) is str:
                return value
        return event.event_key()


_templates: Final[dict[type[Event], Template]] = {}


def template_of(event: Event) -> Template:
    """Return the template of an event's class."""
    found = _templates.get(type(event))
    if found is None:
        if len(_templates) >= _KEPT:  # of a program that makes classes as it goes
            _templates.clear()
        found = _templates[type(event)] = Template(type(event))
    return found
