"""`MemoryDriver`: a `MemoryBroker` behind `eventbus.drivers.base.Driver`."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Self

from eventbus.attempts import AttemptLog
from eventbus.drivers.abilities import is_state
from eventbus.drivers.asking import Asking
from eventbus.drivers.atomic import Mark
from eventbus.drivers.base import (
    HEADROOM,
    Connected,
    Consumer,
    ConsumerSpec,
    Deliver,
    Features,
    InOrder,
    Receipt,
    Status,
    TopologyChanged,
)
from eventbus.drivers.memory.broker import MemoryBroker
from eventbus.drivers.memory.consumer import MemoryConsumer, PinnedConsumer
from eventbus.drivers.memory.durable import Durable
from eventbus.drivers.memory.room import MemoryRoom
from eventbus.drivers.memory.schedules import MemorySchedules
from eventbus.drivers.memory.stream import DRIVER
from eventbus.drivers.room import DurableState, Room
from eventbus.drivers.schedules import Schedules
from eventbus.drivers.timers import Alarm
from eventbus.drivers.watched import Watched
from eventbus.envelope import Message
from eventbus.errors import NotConnectedError
from eventbus.limits import LimitLog
from eventbus.parked import ParkedLog

__all__ = ("MemoryDriver",)

_ORPHAN = (
    "nobody declares it any more; it holds events until it is deleted, or until a listener takes "
    "its name again"
)
_CLOSED = "the memory driver isn't open; start its service"


class MemoryDriver(Watched):
    """Events in this process, at least once, as on JetStream; they are gone when it ends.

    One driver serves one service. Services that are to get each other's events share a broker::

        broker = MemoryBroker(clock)
        orders = EventService("orders", driver=MemoryDriver(broker), clock=clock)
        mailer = EventService("mailer", driver=MemoryDriver(broker), clock=clock)

    Args:
        broker: Where the events are; one of its own where None.
    """

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker()
        super().__init__()
        self._tasks: asyncio.TaskGroup | None = None
        self._alarm: Alarm | None = None
        self._consumers: list[MemoryConsumer] = []
        self._room = MemoryRoom(self.broker)
        self._schedules = MemorySchedules(self.broker)

    @property
    def name(self) -> str:
        """How settings, receipts and metrics call it."""
        return DRIVER

    @property
    def features(self) -> Features:
        """What it can do: all but outlive the process."""
        return Features(delay=True, ordered=True, schedules=True, states=True, atomic=True)

    @property
    def attempts(self) -> AttemptLog:
        """Where it keeps the failed attempts of deliveries."""
        return self.broker.attempts

    @property
    def parked(self) -> ParkedLog:
        """Where it keeps the keys that ordered listeners have set aside."""
        return self.broker.parked

    @property
    def limits(self) -> LimitLog:
        """Where the services of the broker agree on limits."""
        return self.broker.limits

    @property
    def schedules(self) -> Schedules:
        """What waits for its time."""
        return self._schedules

    @property
    def asking(self) -> Asking:
        """Where questions are asked and answered."""
        return self.broker.asking

    @property
    def room(self) -> Room | None:
        """What a janitor works on."""
        return self._room

    async def __aenter__(self) -> Self:
        """Begin to move the broker by its clock."""
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._alarm = Alarm(self.broker.timers, self._tasks)
        self._alarm.begin()
        self.notify(Connected(DRIVER, "", again=False))
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close; what its consumers hold comes back to others when the lease ends."""
        for consumer in self._consumers:
            await consumer.stop()
        self._consumers.clear()
        tasks, self._tasks = self._tasks, None
        if self._alarm is not None:
            self._alarm.end()
        if tasks is not None:
            # Without the exception that ends the caller's block: it isn't one of our tasks'.
            await tasks.__aexit__(None, None, None)

    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Create what durables are missing; one that exists keeps its position.

        Raises:
            TopologyError: One took events that it wouldn't take any more.
            ValueError: A spec's ``start`` is no place to start.
        """
        for spec in sorted(consumers, key=lambda one: not one.beside):
            change = self.broker.provision(spec)
            if change:
                self.notify(TopologyChanged(spec.durable, change))

    async def report_orphans(self, declared: Sequence[ConsumerSpec]) -> None:
        """Tell by signal of each durable of this service that nobody declares any more."""
        known = {one.durable for one in declared}
        services = {one.service for one in declared}
        for name, durable in sorted(self.broker.durables.items()):
            ours = durable.spec.service in services and durable.spec.kept is None
            if ours and name not in known:
                self.notify(TopologyChanged(name, _ORPHAN))

    async def publish(self, message: Message, *, headroom: int = HEADROOM) -> Receipt:
        """Store a message.

        Raises:
            PayloadTooLargeError: It is over the limit.
            BackpressureError: The stream is full.
            NoStreamError: No stream takes its subject.
            NotConnectedError: The driver isn't open.
        """
        self._check_open()
        receipt = self.broker.publish(message, headroom=headroom)
        if is_state(message, self.broker.subjects):
            self.broker.keep(message, receipt)
        # Others get their turn, as they would while a server answers.
        await asyncio.sleep(0)
        return receipt

    async def marked(self, subject: str) -> Mark | None:
        """Return the last mark on a subject; None where none is left."""
        return self.broker.marked(subject)

    async def commit(self, mark: Mark, messages: Sequence[Message]) -> Sequence[Receipt]:
        """Store a mark and messages, or nothing; see `eventbus.drivers.atomic.Atomic`."""
        self._check_open()
        receipts = self.broker.commit(mark, messages)
        await asyncio.sleep(0)
        return receipts

    async def state(self, name: str, key: str) -> Message | None:
        """Return the last state event of a key as it was published; None where there is none."""
        return self.broker.states.get((name, key), (0, None))[1]

    async def states(self, name: str) -> AsyncIterator[Message]:
        """Yield the last state event of each key."""
        kept = [one for key, one in self.broker.states.items() if key[0] == name]
        for _, message in sorted(kept, key=lambda one: one[0]):
            yield message

    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Store a message so that it is published to its subject at a time, not before."""
        self._check_open()
        return self.broker.later.schedule(message, at=at, holder=holder)

    async def hold(self, message: Message) -> Receipt:
        """Store an event so that it is published to its subject once there is room for it."""
        self._check_open()
        return self.broker.later.hold(message)

    async def stored(self, receipt: Receipt) -> Message | None:
        """Return the message that a receipt speaks of; None where it is gone."""
        stored = self.broker.stored(receipt.stream, receipt.sequence)
        return None if stored is None else stored.message

    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Start a consumer; those of one durable share its work.

        Raises:
            TopologyError: Its durable isn't provisioned.
        """
        self._check_open()
        durable = self.broker.durable(consumer.durable)
        return self._started(durable, MemoryConsumer(durable, consumer.slots, deliver))

    async def consume_in_order(self, consumer: ConsumerSpec, taker: InOrder) -> Consumer:
        """Start a contender for an ordered durable; the first has it until it stops.

        Raises:
            TopologyError: Its durable isn't provisioned.
        """
        self._check_open()
        durable = self.broker.durable(consumer.durable)
        return self._started(durable, PinnedConsumer(durable, consumer.slots, taker))

    async def remove(self, consumer: ConsumerSpec) -> None:
        """Delete a durable; what it hasn't handled it never gets."""
        self.broker.durables.pop(consumer.durable, None)

    async def measure(self, durable: str) -> DurableState | None:
        """Return how far a durable is; None where there is none."""
        found = self.broker.durables.get(durable)
        return None if found is None else found.state()

    def status(self) -> Status:
        """Return whether it is open."""
        return Status(() if self._tasks is not None else (_CLOSED,))

    def _started(self, durable: Durable, consumer: MemoryConsumer) -> Consumer:
        self._consumers.append(consumer)
        durable.attach(consumer)
        return consumer

    def _check_open(self) -> None:
        if self._tasks is None:
            raise NotConnectedError(_CLOSED)
