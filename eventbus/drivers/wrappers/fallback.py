"""`Fallback`: hands to a second driver what the first one certainly hasn't taken."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Self

from typing_extensions import override

from eventbus.attempts import AttemptLog, History
from eventbus.delivery import Delivery
from eventbus.drivers.base import (
    HEADROOM,
    Consumer,
    ConsumerSpec,
    Deliver,
    Driver,
    Features,
    InOrder,
    Notify,
    Receipt,
    Status,
)
from eventbus.drivers.wrappers.wrapper import Wrapper
from eventbus.envelope import Message
from eventbus.errors import (
    DeclarationError,
    DriverError,
    EmitUnknown,
    IdConflictError,
    UnsupportedError,
)

__all__ = ("Fallback",)

MARK = "fallback~"
"""Stands before the stream of what the second driver delivers: both may call theirs the same."""


class Fallback(Wrapper):
    """Tries ``primary``, and ``fallback`` where that refuses an event; listeners hear both.

    Never after `EmitUnknown`: the event may be stored, and would be handled twice. It isn't what a
    wait is for: a driver without a connection says so once its emit timeout is over. An event's
    order by key doesn't hold across two drivers, so that there are no ordered listeners.

    Raises:
        DeclarationError: One of them runs listeners at once; what a listener raises isn't a
            refusal.
    """

    def __init__(self, primary: Driver, fallback: Driver) -> None:
        super().__init__(primary)
        if primary.features.immediate or fallback.features.immediate:
            raise DeclarationError(
                "Fallback: the driver 'sync' neither falls back nor is one, since it raises what "
                "listeners raise; use 'memory'"
            )
        self._second = fallback
        self._attempts = _Attempts(primary, fallback)
        self._stack = AsyncExitStack()

    @property
    @override
    def name(self) -> str:
        """How settings, receipts and metrics call both; a receipt says which one it was."""
        return self.inner.name

    @property
    @override
    def features(self) -> Features:
        """What both can do."""
        one, two = self.inner.features, self._second.features
        return Features(
            durable=one.durable and two.durable,
            delay=one.delay and two.delay,
            ordered=False,
            schedules=one.schedules and two.schedules,
            stores=one.stores and two.stores,
        )

    @property
    @override
    def attempts(self) -> AttemptLog:
        """Where each keeps the failed attempts of its deliveries."""
        return self._attempts

    @override
    def watch(self, notify: Notify) -> None:
        """Tell ``notify`` of every later signal of both."""
        self.inner.watch(notify)
        self._second.watch(notify)

    @override
    async def __aenter__(self) -> Self:
        """Enter the second, then the first; a first one that waits for its server is waited for."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._second)
            await stack.enter_async_context(self.inner)
            self._stack = stack.pop_all()
        return self

    @override
    async def __aexit__(self, *exc: object) -> None:
        """Leave both."""
        await self._stack.aclose()

    @override
    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Create, compare or check the durables of both."""
        await self.inner.provision(consumers)
        await self._second.provision(consumers)

    @override
    async def report_orphans(self, declared: Sequence[ConsumerSpec]) -> None:
        """Tell by signal of the durables of both that nobody declares any more."""
        await self.inner.report_orphans(declared)
        await self._second.report_orphans(declared)

    @override
    async def publish(self, message: Message, *, headroom: int = HEADROOM) -> Receipt:
        """Store a message with the first that takes it."""
        try:
            return await self.inner.publish(message, headroom=headroom)
        except DriverError as exc:
            _check_refused(exc)
            return await self._second.publish(message, headroom=headroom)

    @override
    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Store a message until a time with the first that takes it."""
        try:
            return await self.inner.schedule(message, at=at, holder=holder)
        except DriverError as exc:
            _check_refused(exc)
            return await self._second.schedule(message, at=at, holder=holder)

    @override
    async def hold(self, message: Message) -> Receipt:
        """Store an event until there is room with the first that takes it."""
        try:
            return await self.inner.hold(message)
        except DriverError as exc:
            _check_refused(exc)
            return await self._second.hold(message)

    @override
    async def stored(self, receipt: Receipt) -> Message | None:
        """Return the message that a receipt speaks of; None where it is gone."""
        is_second = receipt.driver == self._second.name != self.inner.name
        return await (self._second if is_second else self.inner).stored(receipt)

    @override
    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Start a consumer of each; together they have the slots of one each."""
        first = await self.inner.consume(consumer, deliver)
        second = await self._second.consume(consumer, lambda one: deliver(_Marked(one)))
        return _Both(first, second)

    @override
    async def consume_in_order(self, consumer: ConsumerSpec, taker: InOrder) -> Consumer:
        """Raise UnsupportedError: order by key doesn't hold across two drivers."""
        raise UnsupportedError(
            driver=self.name,
            feature="order by key across two drivers",
            remedy="drop ordered=True, or the Fallback",
        )

    @override
    async def remove(self, consumer: ConsumerSpec) -> None:
        """Delete a durable of both."""
        await self.inner.remove(consumer)
        await self._second.remove(consumer)

    @override
    def status(self) -> Status:
        """Return what is known now of the second; with that one it works without the first."""
        return self._second.status()


class _Both:
    """Two consumers as one."""

    def __init__(self, *consumers: Consumer) -> None:
        self._consumers = consumers

    def limit(self, slots: int) -> None:
        """Take no more than so many at once from each."""
        for one in self._consumers:
            one.limit(slots)

    async def stop(self) -> None:
        """Ask for no more."""
        await asyncio.gather(*(one.stop() for one in self._consumers))


class _Marked:
    """A delivery of the second driver, told apart by its stream."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self.message = delivery.message
        self.stream = f"{MARK}{delivery.stream}"
        self.sequence = delivery.sequence
        self.stored_at = delivery.stored_at
        self.deliveries = delivery.deliveries

    @property
    def lost(self) -> bool:
        """Whether it may be somebody else's by now."""
        return self._delivery.lost

    async def ack(self) -> None:
        """Be done with it."""
        await self._delivery.ack()

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back."""
        await self._delivery.nak(delay)

    async def term(self, reason: str) -> None:
        """Never have it delivered again."""
        await self._delivery.term(reason)

    async def in_progress(self) -> None:
        """Start its ack wait anew."""
        await self._delivery.in_progress()


class _Attempts:
    """Each driver's own log, by where the delivery came from."""

    def __init__(self, primary: Driver, fallback: Driver) -> None:
        self._primary = primary
        self._fallback = fallback

    def _log(self, place: str) -> AttemptLog:
        return (self._fallback if f".{MARK}" in place else self._primary).attempts

    async def read(self, place: str) -> History:
        """Return what is recorded."""
        return await self._log(place).read(place)

    async def write(self, place: str, history: History) -> None:
        """Record it."""
        await self._log(place).write(place, history)

    async def forget(self, place: str) -> None:
        """Drop the record."""
        await self._log(place).forget(place)


def _check_refused(error: DriverError) -> None:
    """Raise what isn't a refusal: the event may be stored, or another one is under its id."""
    if isinstance(error, (EmitUnknown, IdConflictError)):
        raise error
