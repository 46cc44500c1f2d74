"""Feed an ordered subscription: its deliveries go through lanes, and nothing is run out of turn."""

import asyncio
from collections.abc import Awaitable
from functools import partial

from typing_extensions import override

from eventbus.attempts import Known
from eventbus.clock import Clock
from eventbus.delivery import Delivery
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Consumer, Driver
from eventbus.errors import UnsupportedError
from eventbus.settlement import Wait
from eventbus.subscription import Subscription
from eventbus.worker.heartbeat import Heartbeat
from eventbus.worker.lanes import Lanes
from eventbus.worker.pump import Pump
from eventbus.worker.slots import Entrance

__all__ = ("OrderedPump",)


class OrderedPump(Pump):
    """Runs the deliveries of one ordered subscription, a task for each key that has one in hand.

    How many run at once is bounded by the listener's concurrency, how many are in hand by the
    consumer's slots. All that is in hand is kept by heartbeats, also what only waits.
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
        super().__init__(subscription, dispatcher, group, heartbeat, clock, entrance)
        self._lanes = Lanes(
            self._run,
            self._give_back,
            limit=subscription.concurrency,
            clock=clock,
            spawn=self._spawn,
        )

    @property
    @override
    def in_hand(self) -> int:
        """How many deliveries there are, running or waiting in their lane."""
        return self._lanes.in_hand

    @override
    async def stop(self) -> None:
        """Pull no more and give back all that isn't running, now or once it has failed."""
        self.halt()
        await super().stop()
        await self._lanes.end()

    def take(self, delivery: Delivery) -> None:
        """Take a delivery; of one that is in hand it takes the place."""
        self._heartbeat.hold(delivery, self.subscription.ack_wait)
        older = self._lanes.take(delivery)
        if older is not None:
            self._heartbeat.release(older, self.subscription.ack_wait)

    def halt(self) -> None:
        """Begin with nothing more; what runs goes on."""
        self._lanes.halt()

    async def hand_back(self) -> None:
        """Give back what was taken before the last halt and isn't running."""
        await self._lanes.hand_back()

    def resume(self) -> None:
        """Go on: all events that are unsettled anywhere are in our hands."""
        self._dispatcher.renew()
        self._lanes.resume()

    @override
    def _consume(self, driver: Driver) -> Awaitable[Consumer]:
        one = self.subscription
        if not driver.features.ordered:
            raise UnsupportedError(
                driver=driver.name,
                feature=f"order by key, which listener '{one.listener}' asks for",
                remedy="drop ordered=True, or use the driver 'jetstream'",
            )
        return driver.consume_in_order(one.consumer(), self)

    async def _run(self, delivery: Delivery, known: Known) -> Wait | None:
        is_ours = False
        try:
            wait = await self._run_in_place(delivery, known)
            is_ours = wait is not None and not delivery.lost
        finally:
            if not is_ours:
                self._heartbeat.release(delivery, self.subscription.ack_wait)
        return wait

    async def _run_in_place(self, delivery: Delivery, known: Known) -> Wait | None:
        one = self._dispatcher
        if self._entrance is None:
            return await one(delivery, known)
        back = partial(one.hand_back, delivery, known)
        return await self._entrance.through(partial(one, delivery, known), back)

    async def _give_back(self, delivery: Delivery, known: Known) -> None:
        try:
            await self._dispatcher.hand_back(delivery, known)
        finally:
            self._heartbeat.release(delivery, self.subscription.ack_wait)
