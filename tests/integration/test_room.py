"""Room: a small stream through which much flows, and who is asked to make way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from eventbus import BackpressureError, Event, EventService, Receipt
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from eventbus.telemetry.conditions import RoomMade
from tests.faults.harness.pace import patience

pytestmark = [pytest.mark.nats]

MEGABYTE = 1024 * 1024
ROOM = 5 * MEGABYTE
BOX = "x" * 8000


class BoxPacked(Event, name="box.packed"):
    number: int
    content: str = BOX


class BoxShipped(Event, name="box.shipped"):
    number: int
    content: str = BOX


class BoxLost(Event, name="box.lost"):
    number: int


class Seen:
    """The numbers that a listener has handled, and a gate that lets it."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.may = asyncio.Event()
        self.may.set()
        self._more = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        await self.may.wait()
        self.numbers.append(event.number)  # type: ignore[attr-defined]
        self._more.set()

    async def until(self, count: int, seconds: float = 30) -> None:
        async with asyncio.timeout(seconds * patience()):
            while len(set(self.numbers)) < count:
                self._more.clear()
                await self._more.wait()


def settings(server: NatsServer, **changes: object) -> Settings:
    given: dict[str, object] = {"nats_url": server.url, "max_bytes": ROOM, "grace": 2}
    return Settings(**(given | changes))  # type: ignore[arg-type]


def service(
    server: NatsServer, name: str, listens: dict[str, Callable[..., Awaitable[None]]] | None = None
) -> EventService:
    one = EventService(name, settings=settings(server))
    for event, listener in (listens or {}).items():
        one.subscribe(event, listener, name="take", concurrency=64)
    for known in (BoxPacked, BoxShipped, BoxLost):
        one.registry.register(known)
    return one


@asynccontextmanager
async def running(*services: EventService) -> AsyncIterator[None]:
    for one in services:
        await one.start()
    try:
        yield
    finally:
        for one in services:
            await one.stop()


class Flow:
    """Emits, and waits where there is no room; notes who held it."""

    def __init__(self, events: EventService) -> None:
        self._events = events
        self.held_by: set[str] = set()

    async def emit(self, *events: Event) -> None:
        gate = asyncio.Semaphore(32)
        async with asyncio.TaskGroup() as group:
            for event in events:
                await gate.acquire()
                group.create_task(self._emit(event, gate))

    async def _emit(self, event: Event, gate: asyncio.Semaphore) -> None:
        try:
            while True:
                try:
                    await self._events.emit(event)
                except BackpressureError as exc:
                    self.held_by.update(exc.held_by)
                    await asyncio.sleep(0.1)
                else:
                    return
        finally:
            gate.release()


async def test_ten_times_its_size_flows_through_a_stream_and_nothing_unread_is_gone(
    nats_server: NatsServer,
) -> None:
    quick, lagging, idle, stopped = Seen(), Seen(), Seen(), Seen()
    made: list[RoomMade] = []
    shop = service(nats_server, "shop")
    workers = [
        service(nats_server, "quick", {"box.packed": quick}),
        service(nats_server, "lagging", {"box.packed": lagging}),
        service(nats_server, "idle", {"box.lost": idle}),
    ]
    for one in workers:
        one.observe(lambda told: made.append(told) if isinstance(told, RoomMade) else None)
    store = service(nats_server, "store", {"box.shipped": stopped})
    async with running(store):
        pass
    total = 10 * ROOM // len(BOX)

    async with running(shop, *workers):
        flow = Flow(shop)
        await shop.emit(BoxLost(number=1))
        await flow.emit(*(BoxShipped(number=number) for number in range(50)))
        for part in range(10):
            lagging.may.clear()
            numbers = range(part * total // 10, (part + 1) * total // 10)
            async with asyncio.TaskGroup() as group:
                group.create_task(flow.emit(*(BoxPacked(number=one) for one in numbers)))
                group.create_task(_open_later(lagging.may))
        await quick.until(total)
        await lagging.until(total)

        assert set(quick.numbers) == set(lagging.numbers) == set(range(total))
        assert "lagging__take" in flow.held_by
        assert "idle__take" not in flow.held_by
        assert sum(one.events for one in made) > total // 2

        shipped = await until_held(shop, "store__take", begin=50)
        assert all(one.status().ready for one in (shop, *workers))

        async with running(store):
            await flow.emit(*(BoxShipped(number=one) for one in range(shipped, 2 * shipped)))
            await stopped.until(2 * shipped)
        assert set(stopped.numbers) == set(range(2 * shipped))
        assert idle.numbers == [1]


async def test_a_chain_of_events_goes_on_through_a_full_stream(nats_server: NatsServer) -> None:
    shipped = Seen()
    receipts: list[Receipt] = []
    total = MEGABYTE // len(BOX) - 10
    small = settings(nats_server, max_bytes=MEGABYTE)
    shop, mill = EventService("shop", settings=small), EventService("mill", settings=small)

    async def ship(event: BoxPacked) -> None:
        receipts.append(await mill.emit(BoxShipped(number=event.number)))

    mill.subscribe(BoxPacked, ship)
    mill.subscribe(BoxShipped, shipped, name="take")
    async with running(mill):
        pass
    async with running(shop):
        await Flow(shop).emit(*(BoxPacked(number=number) for number in range(total)))
        total = await until_full(shop, begin=total)

        async with running(mill):
            await shipped.until(total)

    # Each once: what waited is known by its id where it arrives.
    assert sorted(shipped.numbers) == list(range(total))
    assert "EVENTS_LATER" in {one.stream for one in receipts}


async def until_full(events: EventService, *, begin: int) -> int:
    """Emit until there is no room; return the first number not stored."""
    number = begin
    while True:
        try:
            await events.emit(BoxPacked(number=number))
        except BackpressureError:
            return number
        number += 1


async def until_held(events: EventService, durable: str, *, begin: int) -> int:
    """Emit until one durable alone holds all the room; return the first number not stored."""
    number = begin
    async with asyncio.timeout(20 * patience()):
        while True:
            try:
                await events.emit(BoxShipped(number=number))
            except BackpressureError as exc:
                if exc.held_by == (durable,):
                    return number
                await asyncio.sleep(0.1)
            else:
                number += 1


async def _open_later(gate: asyncio.Event) -> None:
    await asyncio.sleep(0.3)
    gate.set()
