"""What a service declares to recur: a name, a rule, and a function that makes the event."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, TypeVar, cast

from eventbus.errors import DeclarationError, SubjectError
from eventbus.event import Event
from eventbus.scheduler.rules import Rule
from eventbus.subject import check_name

__all__ = ("Factory", "FactoryT", "Recurring", "Timetable")

Factory: TypeAlias = Callable[[datetime], Event] | Callable[[], Event]
"""Makes the event of one tick, from the tick's time in UTC where it takes one argument.

It is called ahead of that time, and perhaps in several processes: it must not do anything else.
"""
FactoryT = TypeVar("FactoryT", bound=Factory)


@dataclass(frozen=True, slots=True)
class Recurring:
    """An event that recurs."""

    name: str
    """Unique in its service; where its next tick waits."""
    rule: Rule
    factory: Factory
    takes_time: bool

    def event(self, at: datetime) -> Event:
        """Return the event of the tick at a time.

        Raises:
            TypeError: What the factory made is no event.
            Exception: What the factory raises.
        """
        if self.takes_time:
            event: object = cast("Callable[[datetime], Event]", self.factory)(at)
        else:
            event = cast("Callable[[], Event]", self.factory)()
        if not isinstance(event, Event):
            kind = type(event).__name__
            raise TypeError(f"recurring event '{self.name}' is made as {kind}; return an Event")
        return event


class Timetable:
    """All that recurs in one service."""

    def __init__(self) -> None:
        self._entries: dict[str, Recurring] = {}

    def __iter__(self) -> Iterator[Recurring]:
        """Iterate in the order of declaration."""
        return iter(tuple(self._entries.values()))

    def declare(self, rule: Rule, factory: Factory, name: str | None) -> None:
        """Add an entry; it is called as its function where it has no name.

        Raises:
            DeclarationError: The name is taken, or no name; or the function can't be called.
        """
        name = name or str(getattr(factory, "__name__", ""))
        try:
            check_name(name, "recurring event's")
        except SubjectError as exc:
            raise DeclarationError(f"{exc}; give it another name=") from exc
        if name.isdigit():
            raise DeclarationError(f"a recurring event can't be called '{name}'; use a letter")
        if name in self._entries:
            raise DeclarationError(f"two recurring events are called '{name}'; give one a name=")
        self._entries[name] = Recurring(name, rule, factory, _takes_time(name, factory))


def _takes_time(name: str, factory: Factory) -> bool:
    """Tell whether it takes the tick's time."""
    if inspect.iscoroutinefunction(factory):
        raise DeclarationError(
            f"recurring event '{name}': its function only makes the event, ahead of time, so it "
            "can't be async; do the work in a listener"
        )
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(factory).parameters.values()
    needed = [one for one in parameters if one.default is inspect.Parameter.empty]
    takers = [one for one in needed if one.kind in positional]
    varying = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    others = [one.name for one in needed if one not in takers and one.kind not in varying]
    if len(takers) > 1 or others:
        raise DeclarationError(
            f"recurring event '{name}': its function takes the tick's time or nothing, not "
            f"{', '.join(one.name for one in needed)}"
        )
    return bool(takers)
