"""`Together`: what a listener emits and the mark of its event are stored together, or not at all."""

from collections.abc import Callable
from datetime import datetime
from uuid import uuid4

from eventbus import headers as h
from eventbus.drivers.atomic import MOST, Atomic, Mark
from eventbus.envelope import Message
from eventbus.errors import (
    AlreadyHandled,
    BackpressureError,
    DeclarationError,
    IdConflictError,
    Postpone,
    SequenceConflictError,
    UnsupportedError,
)
from eventbus.middleware.base import CallNext, Context
from eventbus.stores.base import Deferred, outside_transactions, within

__all__ = ("Together",)

NO_ROOM = 5.0
"""Seconds until a listener is run again whose emits found no room."""


class Together:
    """Collects what a listener emits, and stores it with the mark of its event once it returns.

    An event whose mark is found isn't handled. Of two runs at the same time one stores its mark;
    what the other one emitted is dropped. Where the listener raises, nothing is stored.

    Args:
        driver: Works the listener, and stores all of it.
        place: Gives the subject of an event's mark, by the event's id.
        durable: The listener's, or that of its replay.
        again: Handle events that are marked, once each in this replay.
    """

    def __init__(
        self, driver: Atomic, place: Callable[[str], str], durable: str, *, again: bool = False
    ) -> None:
        self._driver = driver
        self._place = place
        self._durable = durable
        self._again = again

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the listener and commit."""
        subject = self._place(context.id)
        found = await self._driver.marked(subject)
        if found is not None and not self._passes(found):
            raise AlreadyHandled
        over = 0 if found is None else found.sequence
        mark = Mark(subject, f"{self._durable}:{uuid4().hex}", over)
        batch = _Batch(self._driver, context.listener)
        try:
            with within(batch):
                await call_next(context)
        finally:
            batch.close()
        await self._commit(mark, batch)
        await batch.committed()

    async def _commit(self, mark: Mark, batch: "_Batch") -> None:
        try:
            await self._driver.commit(mark, batch.messages)
        except SequenceConflictError as exc:  # another run was faster
            raise AlreadyHandled from exc
        except BackpressureError as exc:
            # Not the listener's fault, and no attempt: nothing of it is stored.
            raise Postpone(NO_ROOM, pause=True) from exc

    def _passes(self, mark: Mark) -> bool:
        """Tell whether an event is handled in spite of its mark."""
        return self._again and not mark.run.startswith(f"{self._durable}:")


class _Batch:
    """What one run emits; a `Transaction` that its listener's return commits."""

    def __init__(self, driver: Atomic, listener: str) -> None:
        self.driver: object | None = driver
        self.carrier = driver.name
        self.table = f"the batch of listener '{listener}'"
        self.is_open = True  # also after its end, so that nothing goes past it
        self.messages: list[Message] = []
        self._listener = listener
        self._by_id: dict[str, int] = {}
        self._ended = False
        self._told: list[Callable[[], None]] = []
        self._deferred: list[Deferred] = []

    def close(self) -> None:
        """Take no more."""
        self._ended = True

    async def add(self, message: Message, *, publish_at: datetime | None = None) -> int:
        """Take a message and return its place, from 1.

        Raises:
            UnsupportedError: It can't be in a batch.
            IdConflictError: Another one in it has its id.
            DeclarationError: The listener has returned.
        """
        name = message.headers.get(h.TYPE, message.subject)
        if self._ended:
            raise DeclarationError(
                f"'{name}' was emitted after listener '{self._listener}', which is atomic, had "
                "returned; await what it starts, or emit with immediate=True"
            )
        self._check(name, message, publish_at)
        place = self._by_id.get(message.id or "")
        if place is not None:
            if self.messages[place - 1].body != message.body:
                raise IdConflictError(name=name, id=message.id or "", stored="one of this run")
            return place
        if len(self.messages) >= MOST:
            raise self._refused(f"more than {MOST} events in one batch", "emit fewer in a run")
        self.messages.append(message)
        if message.id is not None:
            self._by_id[message.id] = len(self.messages)
        return len(self.messages)

    def _check(self, name: str, message: Message, publish_at: datetime | None) -> None:
        if publish_at is not None:
            raise self._refused(
                f"batch for '{name}', which is delayed and so waits in another stream",
                "emit it with immediate=True",
            )
        if message.headers.get(h.KIND) == "state":
            raise self._refused(
                f"batch for '{name}', whose state is kept in another stream",
                "emit it with immediate=True",
            )

    def _refused(self, feature: str, remedy: str) -> UnsupportedError:
        remedy = f"{remedy}, or drop atomic=True of listener '{self._listener}'"
        return UnsupportedError(driver=self.carrier, feature=feature, remedy=remedy)

    def defer(self, job: Deferred) -> None:
        """Do something after the commit, and not where nothing is stored."""
        self._deferred.append(job)

    def tell(self, tell: Callable[[], None]) -> None:
        """Have observers told of an emit after the commit."""
        self._told.append(tell)

    async def committed(self) -> None:
        """Tell, and do, what waited for the commit."""
        for tell in self._told:
            tell()
        with outside_transactions():
            for job in self._deferred:
                await job()
