"""The kinds of events: base classes that say what an event is for, and what follows from that."""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Self, get_args, get_origin

from typing_extensions import override

from eventbus.event import Data, Event, EventSpec, Kind, spec_of

__all__ = ("DomainEvent", "NotificationEvent", "StateDeleted", "StateEvent")


class DomainEvent(Event):
    """Something that happened inside one service, and is no contract with others.

    Its listeners run in the emitting process, before `emit` returns, and what they raise comes
    out of it: its driver is ``sync`` where the class names none.
    """

    event_kind: ClassVar[Kind] = "domain"


class NotificationEvent(Event):
    """Tells others that something happened, and little more: who wants to know asks for it.

    It holds plain values, such as ids; nested data and mappings are refused, so that it stays
    thin. It goes to the broker like any event.
    """

    event_kind: ClassVar[Kind] = "notification"

    @classmethod
    @override
    def _kind_problems(cls, spec: EventSpec) -> Iterator[str]:
        for field, info in cls.model_fields.items():
            if any(issubclass(one, (Data, Mapping)) for one in _classes(info.annotation)):
                yield (
                    f"{field!r} holds more than a plain value; a notification is thin, use Event "
                    "or StateEvent for one that carries data"
                )


class StateEvent(Event):
    """Carries the whole state of a thing, so that nobody has to ask for it.

    The last one of each key is kept for good, and `EventService.state` reads it. Listeners get
    it like any event; they may skip intermediate ones, never the last. It needs a ``key=``.
    """

    event_kind: ClassVar[Kind] = "state"

    @classmethod
    @override
    def _kind_problems(cls, spec: EventSpec) -> Iterator[str]:
        if spec.key is None:
            yield "a state event is kept by key; add key= with the field that names the thing"


class StateDeleted(StateEvent):
    """The state of a key was deleted: what a listener gets that takes this class too.

    ::

        @events.subscribe(UserProfile)
        async def mirror(event: UserProfile | StateDeleted) -> None: ...
    """

    name: str
    """The state event's name."""
    key: str

    @classmethod
    def of(cls, event: type[StateEvent], key: str) -> Self:
        """Return what is emitted for an event class: the same name and version, and no body."""
        spec = spec_of(event)
        one = cls(name=spec.name, key=key)
        object.__setattr__(one, "event_spec", spec)
        return one

    @override
    def event_key(self) -> str:
        """Return the key whose state is gone."""
        return self.key

    @override
    def event_body(self) -> bytes:
        """Return nothing: a header says that the state is gone."""
        return b""


def _classes(annotation: object) -> Iterable[type]:
    """Yield the classes in an annotation."""
    for one in (annotation, get_origin(annotation)):
        if isinstance(one, type):
            yield one
    for argument in get_args(annotation):
        yield from _classes(argument)
