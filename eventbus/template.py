"""`Template`: what an emit asks of the class of its event, looked up once for each class."""

from typing import TYPE_CHECKING, Final

from eventbus.event import METADATA, Event, EventSpec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Template", "template_of")

_KEPT: Final = 1024
_NOTHING: Final = EventSpec("")


class Template:
    """What all events of a class have alike. A class of pydantic is asked slowly."""

    __slots__ = (
        "_after_commit",
        "_field",
        "_goes_along",
        "_is_plain",
        "expires",
        "key",
        "kind",
        "name",
        "tags",
        "version",
    )

    def __init__(self, event: type[Event]) -> None:
        # A class that is only a base, or whose events say it each for themselves, has none.
        declared: EventSpec | None = event.event_spec
        spec = declared or _NOTHING
        self.name = spec.name
        self.version = spec.version
        self.key = spec.key
        self.tags = spec.tags
        self.kind: str = spec.kind
        self.expires = spec.expires
        self._is_plain = declared is not None and spec.kind != "state"
        self._goes_along = self._is_plain and spec.driver is None
        self._after_commit = self._is_plain and spec.after_commit
        self._field = spec.key if event.event_key is Event.event_key else None
        """What `Event.event_key` reads."""

    def is_plain(self, event: Event) -> bool:
        """Tell whether an event without options needs none of what its envelope may have.

        What the template says holds for those; others ask `eventbus.event.spec_of`.
        """
        return self._is_plain and METADATA not in event.__dict__

    def goes_along(self, event: Event) -> bool:
        """Tell whether an event goes to the service's own driver like any other."""
        if self._goes_along:
            return True
        spec = event.event_spec
        return spec is None or (spec.driver is None and spec.kind != "state")

    def waits_for_commit(self, event: Event) -> bool:
        """Tell whether its listeners in this process run after the commit of a transaction."""
        if self._is_plain:
            return self._after_commit
        spec = event.event_spec
        return spec is not None and spec.after_commit

    def key_of(self, event: Event) -> object:
        """Return what `Event.event_key` does."""
        if self._field is not None:
            value: object = getattr(event, self._field)
            if type(value) is str:
                return value
        own: Callable[[], object] = event.event_key  # a user's may return anything
        return own()


_templates: Final[dict[type[Event], Template]] = {}


def template_of(event: Event) -> Template:
    """Return the template of an event's class."""
    found = _templates.get(type(event))
    if found is None:
        if len(_templates) >= _KEPT:  # of a program that makes classes as it goes
            _templates.clear()
        found = _templates[type(event)] = Template(type(event))
    return found
