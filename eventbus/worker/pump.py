"""Feed one subscription: take deliveries as slots allow, run each, and stop in order."""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextvars import copy_context
from functools import partial

from eventbus.attempts import Known
from eventbus.clock import Clock
from eventbus.delivery import Delivery
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Consumer, Driver
from eventbus.driving import begin
from eventbus.owner import Owner
from eventbus.shortcut import NOT_PLAIN
from eventbus.subscription import Subscription
from eventbus.worker.flow import Flow
from eventbus.worker.heartbeat import Heartbeat
from eventbus.worker.slots import Entrance
from eventbus.worker.valve import Valve

__all__ = ("Pump",)


class Pump:
    """Runs the deliveries of one subscription side by side, in tasks of the worker's group.

    How many run at once is bounded by the consumer's slots.
    """

    def __init__(
        self,
        subscription: Subscription,
        dispatcher: Dispatcher,
        group: asyncio.TaskGroup,
        heartbeat: Heartbeat,
        clock: Clock,
        entrance: Entrance | None = None,
    ) -> None:
        self.subscription = subscription
        self._entrance = entrance
        self._dispatcher = dispatcher
        self._shortcut = dispatcher.shortcut
        self._group = group
        self._heartbeat = heartbeat
        self._clock = clock
        self._consumer: Consumer | None = None
        self._valve: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._owner = Owner(self._running, group)
        self._flow = Flow(self._begin, self._spawn)
        self._in_hand = 0
        self._unconfirmed = 0
        self._all_confirmed = asyncio.Event()

    @property
    def running(self) -> frozenset[asyncio.Task[None]]:
        """The tasks that a stop has to wait for."""
        return frozenset(self._running)

    @property
    def in_hand(self) -> int:
        """How many deliveries there are."""
        return self._in_hand

    async def start(self, driver: Driver) -> None:
        """Begin to pull."""
        one = self.subscription
        self._consumer = await self._consume(driver)
        circuit = self._dispatcher.circuit
        if circuit is not None or self._dispatcher.has_limits:
            valve = Valve(circuit, self._consumer, one.consumer().slots, self._clock)
            self._dispatcher.on_pause(valve.pause)
            self._valve = self._group.create_task(valve.run())

    def end(self) -> None:
        """Expect that what runs is cancelled from now on."""
        self._owner.may_cancel()

    async def stop(self) -> None:
        """Pull no more; what runs goes on. A second stop does nothing."""
        self.end()
        if self._valve is not None:
            self._valve.cancel()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
            await self._flow.begun()
            for delivery in self._flow.end():  # there are no tasks any more
                await delivery.nak()
            if self._unconfirmed:
                self._spawn(self._until_confirmed())

    # What dispatch leaves to us, see `eventbus.dispatch.Aftermath`.

    def began(self) -> None:
        """Count an acknowledgement that the server hasn't confirmed."""
        self._unconfirmed += 1
        self._in_hand += 1

    def ended(self) -> None:
        """Count it as done with, whatever became of it."""
        self._unconfirmed -= 1
        self._in_hand -= 1
        if not self._unconfirmed:
            self._all_confirmed.set()

    def go_on(self, coroutine: Coroutine[object, object, None]) -> None:
        """Settle it in a task after all."""
        try:
            self._spawn(coroutine)
        except RuntimeError:  # the worker has ended; the server delivers it again
            coroutine.close()

    async def _until_confirmed(self) -> None:
        """Be there for a stop to wait for."""
        while self._unconfirmed:
            self._all_confirmed.clear()
            await self._all_confirmed.wait()

    def _consume(self, driver: Driver) -> Awaitable[Consumer]:
        """Begin to pull; no coroutine of its own, for mypyc awaits no overridden one."""
        return driver.consume(self.subscription.consumer(), self._deliver)

    def _deliver(self, delivery: Delivery) -> None:
        self._heartbeat.hold(delivery, self.subscription.ack_wait)
        self._in_hand += 1
        self._flow.take(delivery)

    def _begin(self, delivery: Delivery) -> Awaitable[None] | None:
        """Begin a delivery; return what is left to await in this task."""
        if self._entrance is None:
            short = self._shortcut
            rest = NOT_PLAIN if short is None else short.begin(delivery, self)
            if rest is NOT_PLAIN:
                rest = self._dispatcher(delivery, aftermath=self)
            if rest is None:
                self._let_go(delivery)
                return None
        else:
            rest = self._enter(self._entrance, delivery)
        return begin(self._finish(delivery, rest), copy_context())

    async def _finish(self, delivery: Delivery, rest: Awaitable[object]) -> None:
        try:
            await rest
        finally:
            self._let_go(delivery)

    def _let_go(self, delivery: Delivery) -> None:
        self._heartbeat.release(delivery, self.subscription.ack_wait)
        self._in_hand -= 1

    async def _enter(self, entrance: Entrance, delivery: Delivery) -> None:
        one = self._dispatcher
        back = partial(one.hand_back, delivery, Known())
        await entrance.through(partial(one, delivery, aftermath=self), back)

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._group.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._owner.ended)
        task.add_done_callback(self._running.discard)
        return task
