"""`Lifecycle`: the one task in which a started service lives, from connect to close."""

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import cast

from eventbus.drivers.base import Driver, Status
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import Observer, Stopped
from eventbus.worker.worker import Worker

__all__ = ("Lifecycle",)


class Lifecycle:
    """Runs a driver and a worker in one task of its own.

    Task groups must be left by the task that entered them. With a task of its own, a service may
    be started and stopped from different ones (web frameworks, fixtures).
    """

    def __init__(
        self,
        name: str,
        driver: Driver,
        worker: Worker,
        *,
        observe: Observer,
        resources: Sequence[AbstractAsyncContextManager[object]] = (),
        answering: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        self._name = name
        self._driver = driver
        self._worker = worker
        self._observe = observe
        self._resources = resources
        self._answering = answering or contextlib.nullcontext()
        self._stopping = asyncio.Event()
        self._grace = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(
        self, subscriptions: Sequence[Subscription], *, declared: Sequence[Subscription]
    ) -> None:
        """Connect, provision and listen; returns when that is done.

        ``declared`` are all listeners of the service, also those that another process works.

        Cancelling it, or an error, leaves nothing behind.
        """
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(  # noqa: TID251 - stop and wait await it
            self._run(subscriptions, declared, started), name=f"eventbus {self._name}"
        )
        try:
            await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            raise
        if not started.done():
            await self._task

    async def stop(self, grace: float) -> None:
        """Finish what runs within ``grace`` seconds, hand the rest back, and close."""
        self._grace = grace
        self._stopping.set()
        await self.wait()

    async def wait(self) -> None:
        """Wait until it has ended; raises what ended it. Cancelling this doesn't stop it."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def add(self, subscription: Subscription) -> None:
        """Provision and work another subscription."""
        await self._driver.provision([subscription.consumer()])
        await self._worker.add(subscription)

    async def remove(self, durable: str, *, grace: float) -> None:
        """Work a listener no more; what runs has ``grace`` seconds."""
        await self._worker.remove(durable, grace=grace)

    async def delete(self, subscription: Subscription) -> None:
        """Delete the durable of a listener that isn't worked any more.

        Raises:
            DriverError: It may still be there.
        """
        await self._driver.remove(subscription.consumer())

    async def replay(self, subscription: Subscription, until: datetime | None) -> int:
        """Provision and work a replay; return how many events it was, once it is over."""
        await self._driver.provision([subscription.consumer()])
        return await self._worker.replay(subscription, until)

    def in_flight(self) -> dict[str, int]:
        """Return how many deliveries are in hand, by listener."""
        return self._worker.in_flight()

    def status(self) -> Status:
        """Return whether it works now; safe to call from any thread."""
        if self._task is None or self._task.done():
            return Status((f"service '{self._name}' has ended",))
        if self._stopping.is_set():
            return Status((f"service '{self._name}' is stopping",))
        return self._driver.status()

    async def _run(
        self,
        subscriptions: Sequence[Subscription],
        declared: Sequence[Subscription],
        started: "asyncio.Future[None]",
    ) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                for resource in self._resources:
                    await stack.enter_async_context(resource)
                await stack.enter_async_context(self._driver)
                await self._driver.provision([one.consumer() for one in subscriptions])
                await self._driver.report_orphans([one.consumer() for one in declared])
                await stack.enter_async_context(self._answering)
                cancelled = await self._worker.run(
                    subscriptions,
                    started=lambda: _done(started),
                    stopping=self._stopping,
                    grace=lambda: self._grace,
                )
        except ExceptionGroup as group:
            raise _only(group) from None
        self._observe(Stopped(self._name, cancelled))


def _only(group: ExceptionGroup[Exception]) -> Exception:
    """Return the one error in a task group's report, so that it reads as it was raised."""
    if len(group.exceptions) != 1:
        return group
    one: Exception = group.exceptions[0]
    return _only(cast("ExceptionGroup[Exception]", one)) if _is_group(one) else one


def _is_group(error: Exception) -> bool:
    return isinstance(error, ExceptionGroup)


def _done(started: "asyncio.Future[None]") -> None:
    if not started.done():
        started.set_result(None)
