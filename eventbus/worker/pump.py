"""Feed one subscription: take deliveries as slots allow, run each, and stop in order."""

import asyncio

from eventbus.delivery import Delivery
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Consumer, Driver
from eventbus.subscription import Subscription
from eventbus.worker.heartbeat import Heartbeat

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
    ) -> None:
        self.subscription = subscription
        self._dispatcher = dispatcher
        self._group = group
        self._heartbeat = heartbeat
        self._consumer: Consumer | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> frozenset[asyncio.Task[None]]:
        """The deliveries in hand."""
        return frozenset(self._running)

    async def start(self, driver: Driver) -> None:
        """Begin to pull."""
        self._consumer = await driver.consume(self.subscription.consumer(), self._deliver)

    async def stop(self) -> None:
        """Pull no more; what runs goes on. A second stop does nothing."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

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
