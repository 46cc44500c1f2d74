"""`Durable`: one listener's place in the stream; its consumers share the work, leases come back."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from eventbus.drivers.base import ConsumerSpec
from eventbus.drivers.memory.consumer import MemoryConsumer
from eventbus.drivers.memory.delivery import MemoryDelivery
from eventbus.drivers.memory.stream import Stored, Stream
from eventbus.drivers.room import DurableState
from eventbus.drivers.timers import Timers
from eventbus.subject import matches

__all__ = ("Durable",)


@dataclass(slots=True)
class _Unsettled:
    """What is handed out, or waits to be handed out again."""

    deliveries: int = 0
    current: MemoryDelivery | None = None
    holder: MemoryConsumer | None = None


@dataclass(slots=True)
class Durable:
    """Hands each event that its filters take to one of its consumers, until it is settled.

    What is due again comes before what is new, as on the real server. An ordered one hands all to
    the consumer that came first, until that one stops.
    """

    spec: ConsumerSpec
    filters: tuple[str, ...]
    stream: Stream
    timers: Timers
    cursor: int
    """The next sequence to look at."""
    delivered: int
    """The highest sequence handed out, or before which it started."""
    active: datetime
    begin: int = 0
    """The first sequence that it takes."""
    paused_until: datetime | None = None
    consumers: "deque[MemoryConsumer]" = field(default_factory=deque[MemoryConsumer])
    _unsettled: dict[int, _Unsettled] = field(default_factory=dict[int, _Unsettled])
    _due: "deque[int]" = field(default_factory=deque[int])
    _pumping: bool = False
    _watching: bool = False

    # What deliveries ask.

    @property
    def now(self) -> float:
        """The monotonic time."""
        return self.timers.now

    @property
    def ack_wait(self) -> float:
        """How long a lease lasts."""
        return self.spec.ack_wait

    def lease(self) -> float:
        """Return when a lease that begins now ends."""
        return self.now + self.ack_wait

    def done(self, delivery: MemoryDelivery) -> None:
        """Never hand out that message again."""
        if self._counts(delivery):
            del self._unsettled[delivery.sequence]
            self.active = self.timers.clock.now()

    def again(self, delivery: MemoryDelivery, delay: float) -> None:
        """Hand out that message again, after a delay."""
        if not self._counts(delivery):
            return
        sequence, one = delivery.sequence, self._unsettled[delivery.sequence]
        one.current = None
        delivery.supersede()
        if delay <= 0:
            self._due.append(sequence)
            return

        def due() -> None:
            self._due.append(sequence)
            self.pump()

        self.timers.at(self.now + delay, due)

    # What consumers ask.

    def attach(self, consumer: MemoryConsumer) -> None:
        """Let a consumer share the work."""
        self.consumers.append(consumer)
        self.pump()

    async def detach(self, consumer: MemoryConsumer) -> None:
        """Hand it nothing more."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
            self.pump()

    def is_held_by(self, held: set[MemoryDelivery]) -> bool:
        """Tell whether these are all that is unsettled."""
        return all(one.current in held for one in self._unsettled.values())

    def pump(self) -> None:
        """Hand out what can be."""
        if self._pumping:  # a consumer was told to take more while it is handed something
            return
        self._pumping = True
        try:
            while (consumer := self._free()) is not None and (stored := self._next()) is not None:
                self._hand_out(stored, consumer)
        finally:
            self._pumping = False
        if self.spec.ordered and self.consumers:
            self.consumers[0].looked()

    # What an operator asks.

    def pause(self, until: datetime) -> None:
        """Hand out nothing until a time; what is in hand stays."""
        self.paused_until = until
        wait = (until - self.timers.clock.now()).total_seconds()
        self.timers.at(self.now + max(0.0, wait), self.pump)

    def resume(self) -> None:
        """End a pause now."""
        self.paused_until = None
        self.pump()

    @property
    def is_paused(self) -> bool:
        """Whether it hands out nothing now."""
        return self.paused_until is not None and self.timers.clock.now() < self.paused_until

    def takes(self, subject: str) -> bool:
        """Tell whether its filters match a subject."""
        return any(matches(one, subject) for one in self.filters)

    def state(self) -> DurableState:
        """Return how far it is."""
        pending = sum(
            1
            for one in self.stream.all()
            if one.sequence >= self.cursor and self.takes(one.message.subject)
        )
        unsettled = {seq: one for seq, one in self._unsettled.items() if self.stream.get(seq)}
        return DurableState(
            durable=self.spec.durable,
            filters=self.filters,
            delivered=self.delivered,
            acknowledged=min(unsettled) - 1 if unsettled else self.delivered,
            pending=pending,
            unsettled=len(unsettled),
            redelivered=sum(1 for one in unsettled.values() if one.deliveries > 1),
            waiting=sum(1 for one in self.consumers if one.is_free),
            paused=self.is_paused,
            begin=self.begin,
            active=self.active,
        )

    # Inside.

    def _counts(self, delivery: MemoryDelivery) -> bool:
        """Tell whether a delivery is the one that counts for its message."""
        one = self._unsettled.get(delivery.sequence)
        return one is not None and one.current is delivery

    def _free(self) -> MemoryConsumer | None:
        """Return the consumer whose turn it is."""
        if self.is_paused or not self.consumers:
            return None
        if self.spec.ordered:
            return self.consumers[0] if self.consumers[0].is_free else None
        for _ in range(len(self.consumers)):
            self.consumers.rotate(-1)
            if self.consumers[-1].is_free:
                return self.consumers[-1]
        return None

    def _next(self) -> Stored | None:
        return self._next_due() or self._next_new()

    def _next_due(self) -> Stored | None:
        while self._due:
            stored = self.stream.get(sequence := self._due.popleft())
            if stored is not None:
                return stored
            self._unsettled.pop(sequence, None)  # purged, or too old
        return None

    def _next_new(self) -> Stored | None:
        while self.cursor <= self.stream.last:
            if len(self._unsettled) >= self.spec.max_ack_pending:
                return None
            stored = self.stream.get(self.cursor)
            self.cursor += 1
            if stored is not None and self.takes(stored.message.subject):
                return stored
        return None

    def _hand_out(self, stored: Stored, consumer: MemoryConsumer) -> None:
        one = self._unsettled.setdefault(stored.sequence, _Unsettled())
        one.deliveries += 1
        one.holder = consumer
        one.current = MemoryDelivery(stored, self.stream.name, one.deliveries, self, consumer)
        self.delivered = max(self.delivered, stored.sequence)
        self.active = self.timers.clock.now()
        self._watch(one.current.end)
        consumer.take(one.current)

    def _watch(self, end: float) -> None:
        """Look at the leases when the first may have ended; one look is planned at a time."""
        if not self._watching:
            self._watching = True
            self.timers.at(end, self._look)

    def _look(self) -> None:
        """Take back what shows no sign of life, in the order of the sequences."""
        self._watching = False
        for sequence in sorted(self._unsettled):
            one = self._unsettled[sequence]
            delivery, holder = one.current, one.holder
            if delivery is None or holder is None or self.now < delivery.end:
                continue
            self.again(delivery, 0.0)
            holder.superseded(delivery)
        ends = [one.current.end for one in self._unsettled.values() if one.current is not None]
        if ends:
            self._watch(min(ends))
        self.pump()
