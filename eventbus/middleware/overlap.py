"""`WithoutOverlapping`: one run at a time for each value of a field, in all processes together."""

import asyncio
from dataclasses import dataclass, field
from uuid import uuid4

from typing_extensions import override

from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError, DriverError, Postpone
from eventbus.limits import Limits
from eventbus.middleware.base import CallNext, Context, Middleware
from eventbus.middleware.limit import UNREACHABLE, By, Limit, key_by

__all__ = ("WithoutOverlapping",)

LEASE = 15.0
"""Seconds after which a lock is free whose holder gives no sign of life."""
BEATS = 3


@dataclass(frozen=True)
class WithoutOverlapping(Limit):
    """Run the listener for one event of a key at a time; those of other keys side by side.

    What comes meanwhile goes back to the server for ``retry_after`` and uses up no attempt; no
    order is kept (``ordered=True`` does that). The lock is renewed while the listener runs, and
    free after 15 s where its process has died. A run whose lock couldn't be renewed that long is
    cancelled, and its event goes back.

    Raises:
        DeclarationError: ``retry_after`` is no duration.
    """

    by: By | None = None
    """A field's name or a function of the event; None for one run at a time altogether."""
    retry_after: Duration = 1.0
    wait: float = field(init=False, repr=False, compare=False)
    """``retry_after`` in seconds."""

    def __post_init__(self) -> None:
        """Keep the duration in seconds."""
        try:
            wait = seconds(self.retry_after)
        except ValueError as exc:
            raise DeclarationError(f"WithoutOverlapping(retry_after=): {exc}") from exc
        object.__setattr__(self, "wait", wait)

    @override
    def bind(self, limits: Limits) -> Middleware:
        """Return the middleware that keeps it."""
        return _Exclusive(self, limits)


class _LostError(Exception):
    """The lock is somebody else's."""


@dataclass(slots=True)
class _Lock:
    place: str
    revision: int
    until: float
    """Until when it is ours, on the monotonic clock."""


class _Exclusive:
    """The locks of one listener in one process."""

    def __init__(self, declared: WithoutOverlapping, limits: Limits) -> None:
        self._declared = declared
        self._limits = limits
        self._me = uuid4().hex.encode()
        self._held: set[str] = set()

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain under the lock of the event's key."""
        by = self._declared.by
        place = self._limits.place("lock", "" if by is None else key_by(by, context))
        if place in self._held:
            raise Postpone(self._declared.wait)
        self._held.add(place)
        try:
            lock = await self._acquired(place)
            try:
                await self._run(lock, context, call_next)
            finally:
                await self._free(lock)
        finally:
            self._held.discard(place)

    async def _acquired(self, place: str) -> _Lock:
        """Take the lock.

        Raises:
            Postpone: Somebody else has it, or nobody can tell.
        """
        until = self._limits.clock.monotonic() + LEASE
        try:
            record = await self._limits.log.read(place)
            # What this process doesn't hold, but is its own, is of a write without an answer.
            if record is not None and record.body not in (b"", self._me):
                raise Postpone(self._declared.wait)
            over = record.revision if record is not None else 0
            revision = await self._limits.log.write(place, self._me, over=over, keep=LEASE)
        except DriverError as exc:
            raise Postpone(UNREACHABLE) from exc
        if revision is None:
            raise Postpone(self._declared.wait)
        return _Lock(place, revision, until)

    async def _run(self, lock: _Lock, context: Context, call_next: CallNext) -> None:
        error: Exception | None = None
        is_lost = False
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(lock))
                try:
                    await call_next(context)
                except Exception as exc:  # noqa: BLE001 - raised again outside of the group
                    error = exc
                finally:
                    renewing.cancel()
        except* _LostError:
            is_lost = True
        if is_lost:
            raise Postpone(self._declared.wait)
        if error is not None:
            raise error

    async def _renew(self, lock: _Lock) -> None:
        clock = self._limits.clock
        while True:
            await clock.sleep(LEASE / BEATS)
            until = clock.monotonic() + LEASE
            try:
                revision = await self._limits.log.write(
                    lock.place, self._me, over=lock.revision, keep=LEASE
                )
            except DriverError:
                if clock.monotonic() >= lock.until:
                    raise _LostError from None
                await self._look(lock)
                continue
            if revision is None:
                raise _LostError
            lock.revision, lock.until = revision, until

    async def _look(self, lock: _Lock) -> None:
        """Find out what became of a write without an answer."""
        try:
            record = await self._limits.log.read(lock.place)
        except DriverError:
            return
        if record is not None and record.body == self._me:
            lock.revision = record.revision

    async def _free(self, lock: _Lock) -> None:
        # Where the server can't be told, the lease runs out.
        try:
            await self._limits.log.write(lock.place, b"", over=lock.revision, keep=1.0)
        except DriverError:
            return
