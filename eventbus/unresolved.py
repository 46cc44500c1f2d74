"""The ids of emits of which nobody knows whether they are stored (P2)."""

import asyncio
import weakref
from dataclasses import dataclass

from eventbus.correlation import Handled
from eventbus.errors import EmitUnknown
from eventbus.event import Event

__all__ = ("Unresolved",)


@dataclass(frozen=True, slots=True)
class _Unresolved:
    event: weakref.ref[Event]
    id: str
    run: Handled | None
    """The listener's run that emitted it; in another one the object stands for another event."""


class Unresolved:
    """Event objects, and the ids under which they may be stored."""

    def __init__(self) -> None:
        self._kept: dict[int, _Unresolved] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._kept)

    def id_of(self, event: Event, run: Handled | None) -> str | None:
        """Return the id that an emit of this object left unresolved in this place."""
        one = self._kept.get(id(event)) if self._kept else None
        if one is None or one.event() is not event or one.run is not run:
            return None
        return one.id

    def keep(self, event: Event, event_id: str, run: Handled | None) -> None:
        """Have the next emit of this object in this place use its id again."""
        number = id(event)
        forget = self._kept.pop
        # Nothing keeps the event alive for this; when it goes, so does the entry.
        reference = weakref.ref(event, lambda _: forget(number, None))
        self._kept[number] = _Unresolved(reference, event_id, run)

    def consider(
        self, error: BaseException, event: Event, event_id: str, run: Handled | None
    ) -> None:
        """Keep the id of an emit that ended so that nobody knows whether it is stored."""
        if isinstance(error, (EmitUnknown, asyncio.CancelledError)):
            self.keep(event, event_id, run)

    def resolve(self, event: Event, event_id: str | None) -> None:
        """Forget an object whose event is stored, under an id that was kept of it."""
        if event_id is not None:
            self._kept.pop(id(event), None)
