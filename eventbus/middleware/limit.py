"""`Limit`: middleware that holds across processes, and so needs a driver before it can work."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

from eventbus.errors import DeclarationError, did_you_mean
from eventbus.event import Event, UnknownEvent
from eventbus.limits import Limits
from eventbus.middleware.base import Context, Middleware

__all__ = ("By", "Layer", "Limit", "key_by")

By: TypeAlias = str | Callable[[Event], object]
"""What tells events apart for a limit: a field's name, or a function of the event."""
UNREACHABLE = 1.0
"""Seconds until an event comes back whose limit couldn't be asked."""
_LONGEST_KEY = 100


class Limit(ABC):
    """A limit as it is declared; `bind` makes the middleware of one listener of it.

    What it holds back goes to the server with a delay and uses up no attempt.
    """

    by: By | None

    @abstractmethod
    def bind(self, limits: Limits) -> Middleware:
        """Return the middleware that keeps it."""

    def check(self, listener: str, accepts: Sequence[type[Event]]) -> None:
        """Refuse a field that an event of the listener doesn't have.

        Raises:
            DeclarationError: There is such an event.
        """
        if not isinstance(self.by, str):
            return
        for event in accepts:
            if event is not Event and self.by not in event.model_fields:
                hint = did_you_mean(self.by, event.model_fields)
                raise DeclarationError(
                    f"listener '{listener}': {type(self).__name__}(by={self.by!r}) isn't a field "
                    f"of {event.__name__}{hint}"
                )


Layer: TypeAlias = Middleware | Limit
"""What may stand around a listener."""


def key_by(by: By, context: Context) -> str:
    """Return what tells an event apart, at most 100 characters.

    Raises:
        DeclarationError: It has no such field.
    """
    event = context.event
    value: object
    if not isinstance(by, str):
        value = by(event)
    elif isinstance(event, UnknownEvent) and isinstance(event.data, dict) and by in event.data:
        value = event.data[by]
    elif by in type(event).model_fields:
        value = getattr(event, by)
    else:
        raise DeclarationError(
            f"listener '{context.listener}': '{context.name}' has no field {by!r} to limit by"
        )
    key = str(value)
    return key if len(key) <= _LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()
