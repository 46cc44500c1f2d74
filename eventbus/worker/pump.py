"""Feed one subscription: take deliveries as slots allow, run each, and stop in order."""

import asyncio

from eventbus.clock import Clock
from eventbus.delivery import Delivery
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Consumer, Driver
from eventbus.subscription import Subscription
from eventbus.worker.heartbeat import Heartbeat
from eventbus.worker.valve import Valve

__all__ = ("Pump",)


class Pump:
    """Runs the deliveries of one subscription, each in a task of the worker's group.

    How many run at once is bounded by the consumer's slots.
    """

    def __init__(
        self,
        subscription: Subscription,
        dispatcher: Dispatcher,
        group: asyncio.TaskGroup,
        heartbeat: Heartbeat,
        clock: Clock,
    ) -> None:
        self.subscription = subscription
        self._dispatcher = dispatcher
        self._group = group
        self._heartbeat = heartbeat
        self._clock = clock
        self._consumer: Consumer | None = None
        self._valve: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> frozenset[asyncio.Task[None]]:
        """The tasks that a stop has to wait for."""
        return frozenset(self._running)

    @property
    def in_hand(self) -> int:
        """How many deliveries there are."""
        return len(self._running)

    async def start(self, driver: Driver) -> None:
        """Begin to pull."""
        one = self.subscription
        self._consumer = await self._consume(driver)
        circuit = self._dispatcher.circuit
        if circuit is not None or self._dispatcher.has_limits:
            valve = Valve(circuit, self._consumer, one.consumer().slots, self._clock)
            self._dispatcher.on_pause(valve.pause)
            self._valve = self._group.create_task(valve.run())

    async def stop(self) -> None:
        """Pull no more; what runs goes on. A second stop does nothing."""
        if self._valve is not None:
            self._valve.cancel()
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _consume(self, driver: Driver) -> Consumer:
        return await driver.consume(self.subscription.consumer(), self._deliver)

    def _deliver(self, delivery: Delivery) -> None:
        self._heartbeat.hold(delivery, self.subscription.ack_wait)
        task = self._group.create_task(self._handle(delivery))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._dispatcher(delivery)
        finally:
            self._heartbeat.release(delivery)
