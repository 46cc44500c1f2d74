"""`SyncDriver`: runs this process's listeners before the emit returns; what they raise, it raises."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from datetime import UTC, datetime
from typing import Self
from weakref import WeakKeyDictionary

from typing_extensions import override

from eventbus import headers as h
from eventbus.attempts import AttemptLog
from eventbus.clock import Clock, SystemClock
from eventbus.drivers.abilities import Local
from eventbus.drivers.asking import Asking, LocalAsking
from eventbus.drivers.base import (
    HEADROOM,
    Consumer,
    ConsumerSpec,
    DelayedLost,
    Deliver,
    Features,
    Receipt,
)
from eventbus.drivers.pending import Pending
from eventbus.drivers.plain import PlainDriver
from eventbus.drivers.schedules import Schedules
from eventbus.drivers.timers import Alarm
from eventbus.envelope import Envelope, Message
from eventbus.errors import NoStreamError, PublishError, error_type
from eventbus.subject import Subjects, matches

__all__ = ("SyncDriver", "SyncHub", "shared_hub")

DRIVER = "sync"
LAST = 1.0
"""Seconds that the listeners of delayed events have once their service stops."""


class SyncHub:
    """The listeners that services of one process have, for the sync drivers that share it.

    Args:
        clock: Where what is delayed gets its time from; the machine's where None.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.pending = Pending(clock or SystemClock(), driver=DRIVER)
        """What waits for its time."""
        self._locals: list[tuple[ConsumerSpec, Local]] = []
        self._taking: dict[str, tuple[Local, ...]] = {}
        self.asking = LocalAsking()

    def attach(self, consumer: ConsumerSpec, listener: Local) -> Callable[[], None]:
        """Add a listener; return what removes it."""
        entry = (consumer, listener)
        self._locals.append(entry)
        self._taking.clear()

        def detach() -> None:
            if entry in self._locals:
                self._locals.remove(entry)
                self._taking.clear()

        return detach

    def taking(self, name: str) -> tuple[Local, ...]:
        """Return the listeners of an event, in the order in which they were added."""
        found = self._taking.get(name)
        if found is None:
            found = self._taking[name] = tuple(
                listener
                for consumer, listener in self._locals
                if any(matches(pattern, name) for pattern in consumer.events)
            )
        return found


_shared: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SyncHub]]" = WeakKeyDictionary()


def shared_hub(namespace: str, clock: Clock | None = None) -> SyncHub:
    """Return the hub of all services on the running event loop whose default driver is sync.

    Its clock is that of the first of them.
    """
    hubs = _shared.setdefault(asyncio.get_running_loop(), {})
    found = hubs.get(namespace)
    if found is None:
        found = hubs[namespace] = SyncHub(clock)
    return found


class SyncDriver(PlainDriver):
    """Runs the listeners of an event one after the other, in the caller's task.

    Nothing is stored: an event that nobody listens to is gone, there are no retries, no dead
    letters and no known ids. All listeners run, also behind one that fails; then what it raised is
    raised to the emitter, an ExceptionGroup where several failed. Cancelling the emit cancels the
    listener that runs.

    What is delayed waits in this process, and runs its listeners there when its time has come, by
    the clock alone. Nobody awaits them then: what they raise, and what still waits when the last
    service of the hub stops, is told as `DelayedLost`. Listeners that run then have a second.

    Args:
        hub: The listeners; those of one service where None. Services that share a hub run each
            other's.
        namespace: As in the settings of the services.
        clock: That of a hub which isn't given.
    """

    def __init__(
        self,
        hub: SyncHub | None = None,
        *,
        namespace: str = "events",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(DRIVER, Features(stores=False, immediate=True, schedules=True))
        self._hub = hub or SyncHub(clock)
        self._subjects = Subjects(namespace)
        self._mine: list[Callable[[], None]] = []
        self._group: asyncio.TaskGroup | None = None
        self._alarm: Alarm | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    @override
    def attempts(self) -> AttemptLog:
        """Raise UnsupportedError: there is one attempt."""
        raise self.unsupported("retries")

    @property
    @override
    def asking(self) -> Asking:
        """Where the services that share a hub ask one another."""
        return self._hub.asking

    @property
    @override
    def schedules(self) -> Schedules:
        """What waits for its time, in this process."""
        return self._hub.pending

    @override
    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Have a message wait in this process, in place of what waits there."""
        pending = self._hub.pending
        return pending.receipt(message, pending.put(message, at=at, holder=holder))

    @override
    async def __aenter__(self) -> Self:
        """Begin to run what is due."""
        self._group = await asyncio.TaskGroup().__aenter__()
        self._hub.pending.open(self._take)
        self._alarm = Alarm(self._hub.pending.timers, self._group)
        self._alarm.begin()
        return self

    @override
    async def __aexit__(self, *exc: object) -> None:
        """Run the listeners that came through this driver no more; tell of what still waits."""
        group, self._group = self._group, None
        if group is not None and self._alarm is not None:
            self._alarm.end()
            for one in self._hub.pending.close(self._take):
                # The next start puts the next tick of what recurs there.
                if h.TICK not in one.message.headers:
                    self._lost(one.message, one.at, "no service is left to run it")
            await self._finish()
            await group.__aexit__(None, None, None)
        for detach in self._mine:
            detach()
        self._mine.clear()

    async def _finish(self) -> None:
        """Let listeners of delayed events end, and cancel those that don't."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=LAST)
            for task in late:
                task.cancel()

    def _take(self, message: Message, at: datetime) -> None:
        assert self._group is not None, "an open driver has tasks"
        # Not in the context of whoever woke the clock: its trace isn't that of this event.
        task = self._group.create_task(self._run(message, at), context=Context())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, message: Message, at: datetime) -> None:
        try:
            await self.publish(message)
        except asyncio.CancelledError:
            self._lost(message, at, "its listener was cancelled by a stop")
            raise
        except Exception as exc:  # noqa: BLE001 - the listeners'; nobody awaits them
            self._lost(message, at, f"{error_type(exc)}: {exc}")

    def _lost(self, message: Message, at: datetime, problem: str) -> None:
        headers = h.lowered(message.headers)
        name, id = headers.get(h.TYPE, ""), h.unquoted(headers.get(h.ID, ""))
        self.notify(DelayedLost(name, id, at, problem))

    def attach(self, consumer: ConsumerSpec, listener: Local) -> Callable[[], None]:
        """Run a listener on the events that its consumer names; return what ends that."""
        detach = self._hub.attach(consumer, listener)
        self._mine.append(detach)
        return detach

    async def hand_over(self, envelope: Envelope) -> Receipt:
        """Run the listeners of an event, and return once they have ended.

        Raises:
            Exception: What the one that failed raised; an ExceptionGroup of several.
        """
        errors: tuple[Exception, ...] = ()
        for listener in self._hub.taking(envelope.name):
            error = await listener.handle(envelope)
            if error is not None:
                errors = (*errors, error)
        if errors:
            _raise(errors, envelope.name)
        return Receipt(envelope.id, "", 0, False, DRIVER)

    @override
    async def publish(self, message: Message, *, headroom: int = HEADROOM) -> Receipt:
        """Run the listeners of an event that comes as a message; as `hand_over`."""
        name = self._subjects.event_name(message.subject)
        if name is None:
            raise NoStreamError(f"the driver 'sync' has events alone, not '{message.subject}'")
        message = Message(message.subject, h.lowered(message.headers), message.body, message.id)
        errors: tuple[Exception, ...] = ()
        for listener in self._hub.taking(name):
            error = await listener.receive(message)
            if error is not None:
                errors = (*errors, error)
        if errors:
            _raise(errors, name)
        return Receipt(message.id or message.headers.get(h.ID, ""), "", 0, driver=DRIVER)

    @override
    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Refuse what it can't do.

        Raises:
            UnsupportedError: A consumer wants order by key.
        """
        for one in consumers:
            if one.ordered:
                raise self.unsupported(f"order by key, which listener '{one.listener}' asks for")

    @override
    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Hand each event over as a delivery; its publish waits until that is settled."""
        return _SyncConsumer(self._hub, consumer, deliver)


class _NotHandledError(PublishError):
    """A consumer gave an event back, or up; it has had its one delivery."""

    retryable = False


class _SyncDelivery:
    """One message until it is settled; the contract is that of `eventbus.delivery.Delivery`."""

    deliveries = 1
    stream = ""
    sequence = 0
    lost = False

    def __init__(self, message: Message) -> None:
        self.message = message
        self.stored_at = datetime.now(UTC)  # noqa: TID251 - stored never, received now
        self.settled: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ack(self) -> None:
        """Be done with it."""
        self._settle("")

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back: there is nobody else, so its publish fails."""
        self._settle("its listener gave it back, and the driver 'sync' delivers nothing again")

    async def term(self, reason: str) -> None:
        """Be done with it; its publish fails."""
        self._settle(reason)

    async def in_progress(self) -> None:
        """Do nothing: it has no lease."""

    def _settle(self, problem: str) -> None:
        if not self.settled.done():
            self.settled.set_result(problem)


class _SyncConsumer:
    """Takes deliveries as long as it isn't stopped, and no more at once than it has slots."""

    def __init__(self, hub: SyncHub, consumer: ConsumerSpec, deliver: Deliver) -> None:
        self._deliver = deliver
        self._slots = consumer.slots
        self._held = 0
        self._waking: set[asyncio.Future[None]] = set()
        self._detach = hub.attach(consumer, self)

    def limit(self, slots: int) -> None:
        """Take no more than so many at once from now on; what is in hand stays."""
        self._slots = slots
        self._wake()

    async def stop(self) -> None:
        """Take no more; what waits for a slot is handed over to nobody."""
        self._detach()

    async def handle(self, envelope: Envelope) -> Exception | None:
        """Refuse: a consumer takes messages."""
        return _NotHandledError(f"'{envelope.name}' must be published to reach a consumer")

    async def receive(self, message: Message) -> Exception | None:
        """Hand a message over and wait until it is settled."""
        while self._held >= self._slots:
            await self._wait()
        self._held += 1
        try:
            delivery = _SyncDelivery(message)
            self._deliver(delivery)
            problem = await delivery.settled
        finally:
            self._held -= 1
            self._wake()
        return _NotHandledError(f"'{message.subject}': {problem}") if problem else None

    async def _wait(self) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waking.add(waiting)
        try:
            await waiting
        finally:
            self._waking.discard(waiting)

    def _wake(self) -> None:
        for waiting in self._waking:
            if not waiting.done():
                waiting.set_result(None)


def _raise(errors: tuple[Exception, ...], name: str) -> None:
    if len(errors) == 1:
        raise errors[0]
    raise ExceptionGroup(f"{len(errors)} listeners of '{name}' failed", errors)
