"""The ids of emits that may be repeated, so that nothing is stored twice (P2)."""

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
    ids: list[str]
    """More than one where the object was emitted several times."""
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
        """Return the id that the next emit of this object in this place is to have."""
        one = self._of(event, run) if self._kept else None
        return None if one is None else one.ids[0]

    def keep(self, event: Event, event_id: str, run: Handled | None) -> None:
        """Have an emit of this object in this place use the id again."""
        one = self._of(event, run)
        if one is not None:
            one.ids.append(event_id)
            return
        number = id(event)
        forget = self._kept.pop
        # Nothing keeps the event alive for this; when it goes, so does the entry.
        reference = weakref.ref(event, lambda _: forget(number, None))
        self._kept[number] = _Unresolved(reference, [event_id], run)

    def consider(
        self,
        error: BaseException,
        event: Event,
        event_id: str,
        run: Handled | None,
        known: str | None,
    ) -> None:
        """Keep the id of an emit that failed, where it may be stored by this try or one before."""
        if known is not None or isinstance(error, (EmitUnknown, asyncio.CancelledError)):
            self.keep(event, event_id, run)

    def take(self, event: Event, known: str | None) -> None:
        """Forget the id that `id_of` returned: an emit has begun with it, and no other may."""
        if known is None:
            return
        one = self._kept[id(event)]
        del one.ids[0]
        if not one.ids:
            del self._kept[id(event)]

    def _of(self, event: Event, run: Handled | None) -> _Unresolved | None:
        one = self._kept.get(id(event))
        if one is None or one.event() is not event or one.run is not run:
            return None
        return one
