"""Priorities: urgent events pass those that wait, and none of them starves, is lost or doubled."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from eventbus import Context, Event, EventService
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from tests.integration.rig import settings_of

if TYPE_CHECKING:
    from eventbus.embedded import NatsServer

pytestmark = [pytest.mark.nats]


class Low(Event, name="task.logged", priority="low"):
    number: int


class Plain(Event, name="task.added"):
    number: int


class High(Event, name="task.failed", priority="high"):
    number: int


class Work:
    """A service that writes down in which order it handles events."""

    def __init__(self, settings: Any, broker: MemoryBroker | None, **options: Any) -> None:
        driver = None if broker is None else MemoryDriver(broker)
        self.events = EventService("shop", settings=settings, driver=driver)
        for event in (Low, Plain, High):
            self.events.registry.register(event)
        self.order: list[tuple[str, int]] = []
        self.listeners: Counter[str] = Counter()
        self.running = 0
        self.most = 0
        self._changed = asyncio.Event()

    async def handle(self, event: Any, context: Context) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.order.append((type(event).__name__, event.number))
        self.listeners[context.listener] += 1
        self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.order) < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture(params=["real", "memory"])
def bus(request: pytest.FixtureRequest) -> tuple[Any, MemoryBroker | None]:
    if request.param == "memory":
        return {"nats_url": "nats://127.0.0.1:1"}, MemoryBroker()
    server: NatsServer = request.getfixturevalue("nats_server")
    return {"nats_url": server.url}, None


def work(bus: tuple[Any, MemoryBroker | None], **settings: Any) -> Work:
    url, broker = bus
    return Work(settings_of(url["nats_url"], **settings), broker)


async def emitted(bus: tuple[Any, MemoryBroker | None], *events: Event) -> None:
    async with work(bus).events as service:
        await service.emit_many(events)


def lows(count: int) -> list[Low]:
    return [Low(number=number) for number in range(count)]


def highs(count: int) -> list[High]:
    return [High(number=number) for number in range(count)]


def behind(order: list[tuple[str, int]]) -> int:
    """Return how many low ones are handled after the last high one."""
    last = max(place for place, (kind, _) in enumerate(order) if kind == "High")
    return sum(kind == "Low" for kind, _ in order[last:])


async def test_ten_urgent_ones_behind_a_thousand_pass_nine_hundred_of_them(bus: Any) -> None:
    await emitted(bus, *lows(1000), *highs(10))
    one = work(bus, concurrency=4)
    one.events.subscribe(Low, one.handle, name="low", start="all")
    one.events.subscribe(High, one.handle, name="high", start="all")

    async with one.events:
        await one.until(1010)

    assert behind(one.order) >= 900
    assert one.most <= 4
    assert Counter(one.order).most_common(1)[0][1] == 1


async def test_one_pattern_listener_lets_its_urgent_events_pass(bus: Any) -> None:
    await emitted(bus, *lows(1000), Plain(number=0), *highs(10))
    one = work(bus)
    one.events.subscribe("task.*", one.handle, name="note", start="all", concurrency=4)

    async with one.events:
        await one.until(1011)

    assert behind(one.order) >= 900
    assert one.most <= 4
    assert one.listeners == {"note": 1, "note-low": 1000, "note-high": 10}
    assert Counter(one.order).most_common(1)[0][1] == 1


async def test_unimportant_events_do_not_starve_behind_urgent_ones(bus: Any) -> None:
    await emitted(bus, *highs(600), *lows(10))
    one = work(bus)
    one.events.subscribe("task.*", one.handle, name="note", start="all", concurrency=2)

    async with one.events:
        await one.until(610)

    last = max(place for place, (kind, _) in enumerate(one.order) if kind == "Low")
    assert last < 400


async def test_what_an_existing_durable_has_not_read_is_neither_lost_nor_handled_twice(
    bus: Any,
) -> None:
    """The classes get their priorities in a later deploy than the listener."""

    class Was(Event, name="task.failed"):
        number: int

    before = work(bus)
    before.events.registry = type(before.events.registry)()
    before.events.registry.register(Was)
    before.events.registry.register(Plain)
    before.events.subscribe("task.*", before.handle, name="note")
    async with before.events:
        await before.events.emit(Plain(number=0))
        await before.until(1)
    await emitted(bus, *highs(20), *lows(5))
    after = work(bus)
    after.events.subscribe("task.*", after.handle, name="note")

    async with after.events:
        await after.events.emit_many([*(High(number=number) for number in range(20, 40))])
        await after.until(45)
    again = work(bus)
    again.events.subscribe("task.*", again.handle, name="note")
    async with again.events:
        await again.events.emit(Plain(number=1))
        await again.until(1)

    assert Counter(after.order) == Counter(
        [("High", number) for number in range(40)] + [("Low", number) for number in range(5)]
    )
    assert after.listeners == {"note": 25, "note-high": 20}
    assert again.order == [("Plain", 1)]


async def test_a_stop_gives_back_what_waits_for_a_place(bus: Any) -> None:
    await emitted(bus, *lows(40))
    stuck = asyncio.Event()
    first = work(bus, concurrency=1)

    async def hold(event: Low) -> None:
        stuck.set()
        await asyncio.sleep(0.05)

    first.events.subscribe(Low, hold, name="low", start="all")
    async with first.events, asyncio.timeout(30):
        await stuck.wait()
    second = work(bus, concurrency=1)
    second.events.subscribe(Low, second.handle, name="low", start="all")

    async with second.events:
        await second.until(38)
        assert len({number for _, number in second.order}) >= 38


async def test_a_replay_and_an_end_are_those_of_all_its_durables(bus: Any) -> None:
    one = work(bus)
    one.events.subscribe("task.*", one.handle, name="note")
    async with one.events:
        await one.events.emit_many([*lows(2), *highs(2)])
        await one.until(4)

        assert await one.events.replay("note", "all") == 4
        await one.events.unsubscribe("note", delete=True)

    assert Counter(one.order) == Counter(
        [(kind, number) for kind in ("Low", "High") for number in range(2)] * 2
    )
    assert one.events.subscriptions == ()


async def test_an_emit_that_runs_listeners_at_once_runs_a_split_one_once(bus: Any) -> None:
    one = work(bus)
    one.events.subscribe("task.*", one.handle, name="note")

    async with one.events:
        await one.events.emit(High(number=1), driver="sync")

    assert one.order == [("High", 1)]
