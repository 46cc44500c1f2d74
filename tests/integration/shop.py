"""Services with listeners that fail, for tests of what becomes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from eventbus import Context, Event, EventService, Retry
from eventbus.delivery import Outcome
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.ops.connect import connected
from eventbus.ops.deadletters import (
    Letter,
    Redriven,
    Where,
    find,
    redrive,
)
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled

ONCE = Retry(attempts=1)


class OrderPlaced(Event, name="order.placed", key="order_id"):
    order_id: str
    amount: int = 1


class OrderPacked(Event, name="order.packed"):
    order_id: str


class Shop:
    """Services on one server, what their listeners got, and how deliveries ended."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runs: list[tuple[str, Event, Context]] = []
        self.settled: list[Settled] = []
        self._changed = asyncio.Event()
        self._stack = AsyncExitStack()
        self.driver: JetStreamDriver

    async def start(self) -> "Shop":
        self._first = await self._stack.enter_async_context(self.service("first"))
        self.driver = await self._stack.enter_async_context(connected(self.settings))
        return self

    async def stop(self) -> None:
        await self._stack.aclose()

    def service(self, name: str) -> EventService:
        return EventService(name, settings=self.settings, observers=[self._observe])

    async def listen(
        self,
        place: str,
        does: Callable[[Any, Context], Awaitable[None]] | None = None,
        event: type[Event] | str = OrderPlaced,
        **options: Any,
    ) -> EventService:
        """Start a service with one listener, ``service.listener``."""
        name, _, listener = place.partition(".")
        service = self.service(name)

        async def handle(event: Event, context: Context) -> None:
            self.runs.append((place, event, context))
            if does is not None:
                await does(event, context)

        await service.subscribe(event, handle, name=listener, retry=ONCE, **options)
        return await self._stack.enter_async_context(service)

    async def emit(self, *orders: str, **options: Any) -> list[str]:
        return [
            (await self._first.emit(OrderPlaced(order_id=one), **options)).id for one in orders
        ]

    async def emit_one(self, event: Event) -> None:
        await self._first.emit(event)

    async def ended(self, count: int) -> None:
        """Wait until so many deliveries have ended."""
        async with asyncio.timeout(30):
            while len(self.settled) < count:
                self._changed.clear()
                await self._changed.wait()

    def _observe(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            self.settled.append(happened)
            self._changed.set()

    async def until(self, outcome: Outcome, count: int) -> list[Settled]:
        """Wait until so many deliveries have ended like that."""
        async with asyncio.timeout(30):
            while len(found := [one for one in self.settled if one.outcome is outcome]) < count:
                self._changed.clear()
                await self._changed.wait()
        return found

    async def dead(self, *orders: str, place: str = "mail.send", **options: Any) -> list[Letter]:
        """Let a listener fail on orders, and return all letters there are."""
        await self.listen(place, fail, **options)
        return await self.more_dead(*orders)

    async def more_dead(self, *orders: str) -> list[Letter]:
        await self.emit(*orders)
        await self.until(Outcome.DEAD, len(orders))
        return await letters(self.driver)


async def fail(_event: Event, _context: Context) -> None:
    raise ValueError("no such customer")


async def letters(driver: JetStreamDriver, where: Where | None = None, **how: Any) -> list[Letter]:
    return [one async for one in find(driver, where, **how)]


async def redriven(driver: JetStreamDriver, *which: Letter, **how: Any) -> list[Redriven]:
    given = which or find(driver, Where(redriven=False))
    return [one async for one in redrive(driver, given, **how)]


def orders(found: list[Letter]) -> list[str | None]:
    return [one.key for one in found]


class Sometimes:
    """A listener that fails until it is repaired."""

    def __init__(self) -> None:
        self.broken = True

    async def __call__(self, event: Event, context: Context) -> None:
        if self.broken:
            raise ValueError("no such customer")
