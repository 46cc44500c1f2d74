"""Feed one listener what it has had before, through a durable of its own, and know when it is done."""

import asyncio
from contextlib import suppress
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
        self._stopped = asyncio.Event()

    @property
    def is_stopped(self) -> bool:
        """Whether the worker has ended it before it was done."""
        return self._stopped.is_set()

    @override
    async def stop(self) -> None:
        """Pull no more; a replay that isn't done then raises once what runs has ended."""
        await super().stop()
        self._stopped.set()

    async def replay(self, driver: Driver, until: datetime | None) -> int:
        """Run what is stored from the durable's beginning on, and return how many events it was.

        Raises:
            DriverError: It can't be told what there is, and nothing was run; or it was stopped, or
                its durable was deleted, before all were handled.
        """
        state = await driver.measure(self.subscription.durable)
        self._total = state.pending if state is not None else 0
        self._until = until
        if self._total:
            await self._start_unless_stopped(driver)
            while not await self._is_done(driver):
                await self._rest()
        return len(self._seen - self._skipped)

    async def _start_unless_stopped(self, driver: Driver) -> None:
        if not self.is_stopped:
            await self.start(driver)
        if self.is_stopped:  # while it started
            await super().stop()

    async def _rest(self) -> None:
        """Wait until it is worth to look again.

        Raises:
            DriverError: It was stopped; what ran has ended.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY):
                await self._stopped.wait()
        if self.is_stopped:
            while running := self.running - {asyncio.current_task()}:
                await asyncio.wait(running)
            raise self._unfinished("the service stopped")

    def _unfinished(self, problem: str) -> DriverError:
        one = self.subscription
        return DriverError(
            f"replay of listener '{one.listener}' ended early: {problem} when {len(self._seen)} of "
            f"{self._total} events had been handed out; replay what is missing again"
        )

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
        if self.is_stopped or self.in_hand:
            return False
        if state is None:
            raise self._unfinished("its durable was deleted")
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
