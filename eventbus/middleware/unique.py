"""`Unique`: of the events with an equal key, one within a time, in all processes together."""

import hashlib
from dataclasses import dataclass, field

from typing_extensions import override

from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError, Discard, DriverError, Postpone
from eventbus.limits import Limits
from eventbus.middleware.base import CallNext, Context, Middleware
from eventbus.middleware.limit import UNREACHABLE, By, Limit, key_by

__all__ = ("Unique",)


@dataclass(frozen=True)
class Unique(Limit):
    """Handle the first event of a key; drop others of that key for ``for_`` from its first run.

    They are dropped on purpose, which is counted and logged (outcome ``dropped``), also where the
    first one becomes a dead letter. Retries and a redrive of the first are the same event and run.

    Raises:
        DeclarationError: ``for_`` is no duration over 0.
    """

    for_: Duration
    """How long; rounded up to whole seconds, and no longer than events are kept."""
    by: By | None = None
    """A field's name or a function of the event; None for the event's ordering key, or for its
    whole payload where it has none."""
    keep: float = field(init=False, repr=False, compare=False)
    """``for_`` in seconds."""

    def __post_init__(self) -> None:
        """Keep the duration in seconds."""
        try:
            keep = seconds(self.for_)
        except ValueError as exc:
            raise DeclarationError(f"Unique(for_=): {exc}") from exc
        if not keep:
            raise DeclarationError(f"Unique(for_={self.for_!r}) must be over 0")
        object.__setattr__(self, "keep", keep)

    @override
    def bind(self, limits: Limits) -> Middleware:
        """Return the middleware that keeps it."""
        return _Once(self, limits)


class _Once:
    def __init__(self, declared: Unique, limits: Limits) -> None:
        self._declared = declared
        self._limits = limits

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain, or drop the event."""
        try:
            first = await self._first(context)
        except DriverError as exc:
            raise Postpone(UNREACHABLE) from exc
        if first != context.id:
            raise Discard(f"another event of the same key came within {self._declared.for_}")
        await call_next(context)

    async def _first(self, context: Context) -> str:
        """Return the id of the event that holds the key; this one's where none did."""
        log = self._limits.log
        place = self._limits.place("unique", context.name, self._key(context))
        while True:
            record = await log.read(place)
            if record is not None:
                return record.body.decode(errors="replace")
            body = context.id.encode()
            if await log.write(place, body, over=0, keep=self._declared.keep) is not None:
                return context.id

    def _key(self, context: Context) -> str:
        if self._declared.by is not None:
            return key_by(self._declared.by, context)
        if context.key is not None:
            return key_by(lambda _: context.key, context)
        return hashlib.sha256(context.event.event_body()).hexdigest()
