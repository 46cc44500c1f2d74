"""`Worker`: owns the tasks of a set of subscriptions, from the first pull to the last settle."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TypeAlias

from eventbus.clock import Clock
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Driver
from eventbus.errors import DriverError
from eventbus.subscription import Subscription
from eventbus.worker.heartbeat import Heartbeat
from eventbus.worker.ordered import OrderedPump
from eventbus.worker.pump import Pump
from eventbus.worker.replay import ReplayPump
from eventbus.worker.slots import WEIGHTS, Entrance, Slots

__all__ = ("Job", "Worker")

Job: TypeAlias = Callable[[], Awaitable[None]]
"""Something that runs as long as the worker does, and ends when it is cancelled."""

SETTLE_TIME = 1.0
"""Seconds of the grace period kept for handing back what had to be cancelled."""


class Worker:
    """Works the subscriptions it is given until it is told to stop.

    It knows a driver, subscriptions and dispatchers; never the service.
    """

    def __init__(
        self,
        driver: Driver,
        dispatcher: Callable[[Subscription], Dispatcher],
        *,
        jobs: Sequence[Job] = (),
        clock: Clock,
        concurrency: int | None = None,
    ) -> None:
        self._shared = Slots(concurrency) if concurrency is not None else None
        self._groups: dict[str, Slots] = {}
        self._driver = driver
        self._dispatcher = dispatcher
        self._jobs = jobs
        self._clock = clock
        self._heartbeat = Heartbeat(clock)
        self._group: asyncio.TaskGroup | None = None
        self._pumps: list[Pump] = []

    async def run(
        self,
        subscriptions: Sequence[Subscription],
        *,
        started: Callable[[], None],
        stopping: asyncio.Event,
        grace: Callable[[], float],
    ) -> int:
        """Work until ``stopping`` is set; return how many listeners had to be cancelled.

        Then background jobs are cancelled, it pulls no more, lets what runs finish, and after
        ``grace`` seconds cancels the rest, which goes back to the server. Cancelling it cancels
        what runs at once. A background job that raises ends it with that error.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            beating = group.create_task(self._heartbeat.run())
            try:
                for subscription in subscriptions:
                    await self.add(subscription)
                jobs = {group.create_task(self._job(job)) for job in self._jobs}
                started()
                await stopping.wait()
                cancelled = await self._finish(grace(), jobs)
            finally:
                # Also where a job or a cancellation ends it: what came now would find no group.
                await self._stop_pulling()
            beating.cancel()
        self._group = None
        return cancelled

    async def add(self, subscription: Subscription) -> None:
        """Work another subscription, whose durable is provisioned, from now on."""
        assert self._group is not None, "the worker doesn't run"
        dispatcher = self._dispatcher(subscription)
        kind = OrderedPump if subscription.ordered else Pump
        entrance = self._entrance(subscription)
        pump = kind(subscription, dispatcher, self._group, self._heartbeat, self._clock, entrance)
        self._pumps.append(pump)
        await pump.start(self._driver)

    async def remove(self, durable: str, *, grace: float) -> None:
        """Work a listener no more: what runs may finish, what is late goes back to the server.

        Its durable stays, unless it is this process's own.
        """
        for pump in [one for one in self._pumps if one.subscription.durable == durable]:
            self._pumps.remove(pump)
            await self._end(pump, grace)

    async def replay(self, subscription: Subscription, until: datetime | None) -> int:
        """Run what a provisioned durable of a replay hands out; return how many events it was.

        Raises:
            DriverError: The server can't tell what there is, or the worker ended before it was done.
        """
        if self._group is None:
            raise DriverError(f"replay of listener '{subscription.listener}': the service stopped")
        dispatcher = self._dispatcher(subscription)
        pump = ReplayPump(subscription, dispatcher, self._group, self._heartbeat, self._clock)
        self._pumps.append(pump)
        try:
            return await pump.replay(self._driver, until)
        finally:
            if not pump.is_stopped:  # else the worker ends, and sees to what runs
                self._pumps.remove(pump)
                await self._end(pump, SETTLE_TIME)

    async def _end(self, pump: Pump, grace: float) -> None:
        deadline = self._clock.monotonic() + grace
        await pump.stop()
        late = await self._wait(set(pump.running), deadline)
        for task in late:
            task.cancel()
        await self._wait(late, deadline + SETTLE_TIME)
        if pump.subscription.ends:
            await self._drop(pump)

    async def _drop(self, pump: Pump) -> None:
        # Where the server can't be told, it notices that nobody works it.
        with suppress(DriverError):
            await self._driver.remove(pump.subscription.consumer())

    def _entrance(self, one: Subscription) -> Entrance | None:
        """Return what it has to pass: the places of its listener, then those of all."""
        slots: list[Slots] = []
        if one.beside or one.left_to:
            group = one.beside or one.durable
            slots.append(self._groups.setdefault(group, Slots(one.concurrency)))
        if self._shared is not None:
            slots.append(self._shared)
        return Entrance(one.durable, WEIGHTS[one.priority], slots) if slots else None

    def in_flight(self) -> dict[str, int]:
        """Return how many deliveries are in hand, by listener."""
        return {pump.subscription.listener: pump.in_hand for pump in self._pumps}

    async def _job(self, job: Job) -> None:
        try:
            await job()
        except Exception:
            for pump in self._pumps:  # the group cancels at once what they run
                pump.end()
            raise

    async def _finish(self, grace: float, jobs: set[asyncio.Task[None]]) -> int:
        deadline = self._clock.monotonic() + max(0.0, grace - SETTLE_TIME)
        for job in jobs:
            job.cancel()
        await self._stop_pulling()
        # Now, since what goes back must not come again.
        for slots in (self._shared, *self._groups.values()):
            if slots is not None:
                slots.close()
        running = {task for pump in self._pumps for task in pump.running}
        late = await self._wait(running | jobs, deadline)
        for task in late:
            task.cancel()
        await self._wait(late, deadline + SETTLE_TIME)
        ending = [pump for pump in self._pumps if pump.subscription.ends]
        await asyncio.gather(*(self._drop(pump) for pump in ending))
        return len(late & running)

    async def _stop_pulling(self) -> None:
        await asyncio.gather(*(pump.stop() for pump in self._pumps))

    async def _wait(
        self, tasks: set[asyncio.Task[None]], deadline: float
    ) -> set[asyncio.Task[None]]:
        """Wait for tasks until a deadline and return those that are not done."""
        if not tasks:
            return set()
        timeout = max(0.0, deadline - self._clock.monotonic())
        return (await asyncio.wait(tasks, timeout=timeout))[1]
