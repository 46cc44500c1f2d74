"""`EventMap`: what listens to what, in one place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar, Unpack, cast

from eventbus.classes import AnyListener
from eventbus.errors import DeclarationError
from eventbus.event import Event
from eventbus.listener import Listener
from eventbus.subscribing import AllOptions
from eventbus.subscription import ListenerFunction

__all__ = ("Binding", "EventMap")

EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True, slots=True)
class Binding:
    """One handler of one event."""

    event: type[Event] | str
    handler: AnyListener
    options: AllOptions[Event]


class EventMap:
    """Bindings of events to handlers, for those who like them in one module.

    ::

        event_map = EventMap()
        event_map.bind(UserCreated, [Welcome, AddToNewsletter])
        event_map.bind("payment.*", note, queue="audit")

        events = EventService("notification")
        events.include(event_map)
    """

    def __init__(self) -> None:
        self._bindings: list[Binding] = []

    def bind(
        self,
        event: type[EventT] | str,
        handler: ListenerFunction[EventT]
        | type[Listener[EventT]]
        | Sequence[ListenerFunction[EventT] | type[Listener[EventT]]],
        /,
        **options: Unpack[AllOptions[EventT]],
    ) -> Self:
        """Bind an event to a handler, or to several; options are those of `subscribe`.

        Raises:
            DeclarationError: There is no handler, or several are to have one name.
        """
        several = isinstance(handler, Sequence)
        handlers = [*cast("Sequence[AnyListener]", handler)] if several else [handler]
        if not handlers or (len(handlers) > 1 and "name" in options):
            raise DeclarationError(
                f"bind({event!r}) needs a handler, and name= is for one alone; bind each by itself"
            )
        for one in handlers:
            self._bindings.append(Binding(event, one, options))  # type: ignore[arg-type]
        return self

    def __iter__(self) -> Iterator[Binding]:
        """Iterate over the bindings, in the order in which they were made."""
        return iter(tuple(self._bindings))
