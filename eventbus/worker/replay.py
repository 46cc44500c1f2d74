"""Feed one listener what it has had before, through a durable of its own, and know when it is done."""

import asyncio
from datetime import datetime

from typing_extensions import override

from eventbus.clock import Clock
from eventbus.delivery import Delivery
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Driver
from eventbus.errors import DriverError
from eventbus.subscription import Subscription
from eventbus.worker.heartbeat import Heartbeat
from eventbus.worker.pump import Pump

__all__ = ("ReplayPump",)

LOOK_EVERY = 0.1


class ReplayPump(Pump):
    """Runs so many stored events, their retries included; what was stored later isn't its work."""

    def __init__(
        self,
        subscription: Subscription,
        dispatcher: Dispatcher,
        group: asyncio.TaskGroup,
        heartbeat: Heartbeat,
        clock: Clock,
    ) -> None:
        super().__init__(subscription, dispatcher, group, heartbeat, clock)
        self._total = 0
        self._until: datetime | None = None
        self._seen: set[int] = set()
        self._skipped: set[int] = set()

    async def replay(self, driver: Driver, until: datetime | None) -> int:
        """Run what is stored from the durable's beginning on, and return how many events it was.

        Raises:
            DriverError: It can't be told what there is; nothing was run.
        """
        state = await driver.measure(self.subscription.durable)
        self._total = state.pending if state is not None else 0
        self._until = until
        if self._total:
            await self.start(driver)
            while not await self._is_done(driver):
                await self._clock.sleep(LOOK_EVERY)
        return len(self._seen - self._skipped)

    async def _is_done(self, driver: Driver) -> bool:
        if self.in_hand or (len(self._seen) < self._total and not await self._is_empty(driver)):
            return False
        return await self._is_empty(driver, also_pending=False)

    async def _is_empty(self, driver: Driver, *, also_pending: bool = True) -> bool:
        """Tell whether nothing waits for a retry, and, where asked, nothing is left to hand out."""
        try:
            state = await driver.measure(self.subscription.durable)
        except DriverError:
            return False
        if state is None or self.in_hand:
            return state is None
        return not state.unsettled and not (also_pending and state.pending)

    @override
    def _deliver(self, delivery: Delivery) -> None:
        sequence = delivery.sequence
        if sequence not in self._seen:
            is_late = self._until is not None and delivery.stored_at >= self._until
            if len(self._seen) >= self._total or is_late:
                self._skip(delivery)
                return
            self._seen.add(sequence)
        super()._deliver(delivery)

    def _skip(self, delivery: Delivery) -> None:
        """Be done with an event that isn't replayed; only this replay's durable hears of it."""
        if len(self._seen) < self._total:
            self._seen.add(delivery.sequence)
            self._skipped.add(delivery.sequence)
        self._spawn(_acknowledge(delivery))


async def _acknowledge(delivery: Delivery) -> None:
    try:
        await delivery.ack()
    except DriverError:  # it comes again, and is acknowledged then
        return
