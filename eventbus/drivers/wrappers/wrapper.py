"""`Wrapper`: a driver that asks another one; the base of those that change how it is asked."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Self, TypeAlias

from eventbus.attempts import AttemptLog
from eventbus.drivers.abilities import KeepsStates, Local, is_immediate, keeps_states
from eventbus.drivers.asking import Asking
from eventbus.drivers.atomic import Atomic, Mark, is_atomic
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
from eventbus.drivers.room import DurableState, Room
from eventbus.drivers.schedules import Schedules
from eventbus.envelope import Envelope, Message
from eventbus.errors import UnsupportedError
from eventbus.limits import LimitLog
from eventbus.parked import ParkedLog

__all__ = ("Send", "Wrapper")

Send: TypeAlias = Callable[[], Awaitable[Receipt]]
"""Hands an event to the driver inside; calling it again hands it over again."""


class Wrapper:
    """A driver that does what ``inner`` does, under its name and with its features.

    A subclass overrides `send`, which everything goes through that hands an event over.
    """

    def __init__(self, inner: Driver) -> None:
        self.inner = inner

    async def send(self, send: Send, subject: str) -> Receipt:
        """Hand an event over that is published on a subject; events are known by their name."""
        return await send()

    @property
    def name(self) -> str:
        """That of the driver inside."""
        return self.inner.name

    @property
    def features(self) -> Features:
        """Those of the driver inside."""
        return self.inner.features

    @property
    def attempts(self) -> AttemptLog:
        """That of the driver inside."""
        return self.inner.attempts

    @property
    def parked(self) -> ParkedLog:
        """That of the driver inside."""
        return self.inner.parked

    @property
    def limits(self) -> LimitLog:
        """That of the driver inside."""
        return self.inner.limits

    @property
    def schedules(self) -> Schedules:
        """Those of the driver inside; what is added goes through `send` too."""
        return _Schedules(self.inner.schedules, self.send)

    @property
    def asking(self) -> Asking:
        """Where questions are asked and answered."""
        return self.inner.asking

    @property
    def room(self) -> Room | None:
        """That of the driver inside."""
        return self.inner.room

    def watch(self, notify: Notify) -> None:
        """Tell ``notify`` of every later signal."""
        self.inner.watch(notify)

    async def __aenter__(self) -> Self:
        """Enter the driver inside."""
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave the driver inside."""
        await self.inner.__aexit__(*exc)

    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Create, compare or check the durables; raises as `Driver.provision`."""
        await self.inner.provision(consumers)

    async def report_orphans(self, declared: Sequence[ConsumerSpec]) -> None:
        """Tell by signal of each durable of this service that nobody declares any more."""
        await self.inner.report_orphans(declared)

    async def publish(self, message: Message, *, headroom: int = HEADROOM) -> Receipt:
        """Store a message; raises as `Driver.publish`."""
        return await self.send(
            lambda: self.inner.publish(message, headroom=headroom), message.subject
        )

    async def state(self, name: str, key: str) -> Message | None:
        """Return the last state event of a key, as the driver inside keeps it."""
        return await self._keeper().state(name, key)

    def states(self, name: str) -> AsyncIterator[Message]:
        """Yield the last state event of each key, as the driver inside keeps them."""
        return self._keeper().states(name)

    def _keeper(self) -> KeepsStates:
        inner = self.inner
        if not keeps_states(inner):
            raise UnsupportedError(
                driver=self.name,
                feature="keeping states",
                remedy="use the driver 'jetstream' or 'memory'",
            )
        return inner

    async def marked(self, subject: str) -> Mark | None:
        """Return the last mark on a subject, as the driver inside keeps it."""
        return await self._marker().marked(subject)

    async def commit(self, mark: Mark, messages: Sequence[Message]) -> Sequence[Receipt]:
        """Store a mark and messages, or nothing, with the driver inside and not through `send`."""
        return await self._marker().commit(mark, messages)

    def _marker(self) -> Atomic:
        inner = self.inner
        if not is_atomic(inner):
            raise UnsupportedError(
                driver=self.name,
                feature="storing a mark and events together",
                remedy="use the driver 'jetstream' or 'memory'",
            )
        return inner

    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Store a message until a time; raises as `Driver.publish`."""
        return await self.send(
            lambda: self.inner.schedule(message, at=at, holder=holder), message.subject
        )

    async def hold(self, message: Message) -> Receipt:
        """Store an event until there is room; raises as `Driver.publish`."""
        return await self.send(lambda: self.inner.hold(message), message.subject)

    async def hand_over(self, envelope: Envelope) -> Receipt:
        """Run the listeners of an event at once; raises as `Immediate.hand_over`."""
        inner = self.inner
        if not is_immediate(inner):
            raise self._not_immediate()
        return await self.send(lambda: inner.hand_over(envelope), envelope.name)

    def attach(self, consumer: ConsumerSpec, listener: Local) -> Callable[[], None]:
        """Run a listener at once from now on; return what ends that."""
        if not is_immediate(self.inner):
            raise self._not_immediate()
        return self.inner.attach(consumer, listener)

    async def stored(self, receipt: Receipt) -> Message | None:
        """Return the message that a receipt speaks of; None where it is gone."""
        return await self.inner.stored(receipt)

    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Start a consumer whose durable is provisioned."""
        return await self.inner.consume(consumer, deliver)

    async def consume_in_order(self, consumer: ConsumerSpec, taker: InOrder) -> Consumer:
        """Start an ordered consumer; raises as `Driver.consume_in_order`."""
        return await self.inner.consume_in_order(consumer, taker)

    async def remove(self, consumer: ConsumerSpec) -> None:
        """Delete a durable; raises as `Driver.remove`."""
        await self.inner.remove(consumer)

    async def measure(self, durable: str) -> DurableState | None:
        """Return how far a durable is; raises as `Driver.measure`."""
        return await self.inner.measure(durable)

    def status(self) -> Status:
        """Return what is known now."""
        return self.inner.status()

    def _not_immediate(self) -> UnsupportedError:
        return UnsupportedError(
            driver=self.name,
            feature="running listeners at once",
            remedy="use the driver 'sync' for it",
        )


class _Schedules:
    """The schedules of the driver inside."""

    def __init__(self, inner: Schedules, send: Callable[[Send, str], Awaitable[Receipt]]) -> None:
        self._inner = inner
        self._send = send
        self.now = inner.now
        self.read = inner.read
        self.cancel = inner.cancel
        self.replace = inner.replace
        self.find = inner.find

    async def add(
        self, message: Message, *, at: datetime, holder: str, instead_of: int = 0
    ) -> Receipt:
        """Store a message so that it is published to its subject at a time."""
        inner = self._inner
        return await self._send(
            lambda: inner.add(message, at=at, holder=holder, instead_of=instead_of),
            message.subject,
        )
