"""Who gets an event, on a real server: one process, each, or each that runs; and coming and going."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from eventbus import Context, EventService, Retry
from eventbus.delivery import Outcome
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.memory.driver import MemoryDriver
from eventbus.embedded import NatsServer
from eventbus.errors import DeclarationError, DriverError, TopologyError
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled
from tests.integration.rig import plain
from tests.integration.shop import OrderPlaced
from tests.waiting import comes_true, eventually

pytestmark = [pytest.mark.nats]


class Process:
    """A process with one listener, what it got, and how its deliveries ended."""

    def __init__(self, server: NatsServer, listener: str = "heard", **settings: Any) -> None:
        self.events = EventService(
            "shop", settings=Settings(nats_url=server.url, grace=2, **settings)
        )
        self.events.observe(self._observe)
        self.name = listener
        self.got: list[str] = []
        self.contexts: list[Context] = []
        self.settled: list[Settled] = []
        self.fails: set[str] = set()

    def listen(self, **options: Any) -> "Process":
        retry = Retry(attempts=3, start=0.05, jitter="none")
        self.events.subscribe(OrderPlaced, self.hear, name=self.name, retry=retry, **options)
        return self

    async def hear(self, event: OrderPlaced, context: Context) -> None:
        self.contexts.append(context)
        if event.order_id in self.fails:
            raise ValueError("no")
        self.got.append(event.order_id)

    async def until(self, *orders: str) -> bool:
        async def done() -> bool:
            return sorted(self.got) == sorted(orders)

        return await comes_true(done, 30)

    async def emit(self, *orders: str) -> None:
        for one in orders:
            await self.events.emit(OrderPlaced(order_id=one))

    def _observe(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            self.settled.append(happened)


@asynccontextmanager
async def running(*processes: Process) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for one in processes:
            await stack.enter_async_context(one.events)
        yield


async def consumers(server: NatsServer) -> dict[str, Any]:
    async with plain(server.url) as client:
        infos = await client.jetstream().consumers_info("EVENTS")
    return {one.name or "": one for one in infos}


@pytest.mark.parametrize("mode", ["fanout", "ephemeral"])
async def test_every_process_gets_every_event(nats_server: NatsServer, mode: str) -> None:
    one, two = (Process(nats_server).listen(mode=mode) for _ in range(2))
    async with running(one, two):
        two.fails.add("o-2")
        await one.emit("o-1", "o-2")
        assert await one.until("o-1", "o-2")

        async def dead() -> bool:
            return any(each.outcome is Outcome.DEAD for each in two.settled)

        await eventually(dead, 30)
        assert len(await consumers(nats_server)) == 2

    assert two.got == ["o-1"]
    # A process that stops leaves nothing that holds room.
    assert await consumers(nats_server) == {}


async def test_a_process_with_a_name_goes_on_where_it_was(nats_server: NatsServer) -> None:
    first = Process(nats_server, instance="pod-1").listen(mode="fanout")
    other = Process(nats_server, instance="pod-2").listen(mode="fanout")
    async with running(other):
        async with running(first):
            await other.emit("o-1")
            assert await first.until("o-1")
        await other.emit("o-2")

        again = Process(nats_server, instance="pod-1").listen(mode="fanout")
        async with running(again):
            assert await again.until("o-2")

    kept = (await consumers(nats_server))["shop__heard__pod-1"]
    assert kept.config.inactive_threshold == 600


async def test_an_ephemeral_listener_begins_with_what_is_new_and_holds_no_room(
    nats_server: NatsServer,
) -> None:
    one = Process(nats_server)
    async with running(one):
        await one.emit("o-1")
    one = Process(nats_server).listen(mode="ephemeral")
    async with running(one):
        await one.emit("o-2")
        assert await one.until("o-2")

        async with JetStreamDriver(Settings(nats_url=nats_server.url), service="x") as driver:
            assert driver.room is not None
            assert await driver.room.durables() == ()


async def test_nobody_elses_durable_is_an_orphan(nats_server: NatsServer) -> None:
    one = Process(nats_server).listen(mode="fanout")
    told: list[Happened] = []
    async with running(one):
        two = Process(nats_server).listen(mode="fanout")
        two.events.observe(told.append)
        async with running(two):
            pass

    assert not [each for each in told if "nobody declares" in str(each)]


@pytest.mark.parametrize("provision", ["check", "off"])
async def test_a_process_makes_its_own_durable_where_it_may(
    nats_server: NatsServer, provision: str
) -> None:
    async with running(Process(nats_server)):
        pass
    one = Process(nats_server, provision=provision).listen(mode="fanout")

    if provision == "off":
        with pytest.raises(TopologyError, match="EVENTBUS_PROVISION=off creates nothing"):
            await one.events.start()
        return
    async with running(one):
        await one.emit("o-1")
        assert await one.until("o-1")


async def test_a_listener_comes_and_goes_while_the_service_runs(nats_server: NatsServer) -> None:
    one = Process(nats_server)
    async with running(one):
        await one.events.subscribe(OrderPlaced, one.hear)
        await one.emit("o-1")
        assert await one.until("o-1")

        await one.events.unsubscribe(one.hear)
        await one.emit("o-2")
        assert one.events.subscriptions == ()
        assert one.events.in_flight() == {}
        await one.events.subscribe(OrderPlaced, one.hear)

        assert await one.until("o-1", "o-2")
        await one.events.unsubscribe("hear", delete=True)
        assert await consumers(nats_server) == {}
        with pytest.raises(DeclarationError, match="no listener 'hear'"):
            await one.events.unsubscribe("hear")


async def test_what_runs_may_finish_when_its_listener_goes(nats_server: NatsServer) -> None:
    one = Process(nats_server)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(event: OrderPlaced) -> None:
        began.set()
        await go_on.wait()

    async with running(one):
        await one.events.subscribe(OrderPlaced, slow)
        await one.emit("o-1")
        await began.wait()
        async with asyncio.TaskGroup() as group:
            going = group.create_task(one.events.unsubscribe(slow))
            await asyncio.sleep(0)
            assert not going.done()
            go_on.set()

        assert [each.outcome for each in one.settled] == [Outcome.OK]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_replay_hands_out_again_and_leaves_the_position_alone(
    nats_server: NatsServer, ordered: bool
) -> None:
    one = Process(nats_server).listen(ordered=ordered)
    async with running(one):
        await one.emit("o-1", "o-2", "o-3")
        assert await one.until("o-1", "o-2", "o-3")
        position = (await consumers(nats_server))["shop__heard"].delivered
        one.got.clear()
        one.contexts.clear()
        one.fails.add("o-3")

        count = await one.events.replay("heard", 2)

        assert count == 2
        assert one.got == ["o-2"]
        assert all(each.is_replay for each in one.contexts)
        assert [each.attempt for each in one.contexts if each.event.order_id == "o-3"] == [1, 2, 3]  # type: ignore[attr-defined]
        assert (await consumers(nats_server))["shop__heard"].delivered == position
        assert set(await consumers(nats_server)) == {"shop__heard"}
        await one.emit("o-4")
        assert await one.until("o-2", "o-4")
        assert not one.contexts[-1].is_replay


async def test_a_replay_begins_and_ends_at_a_time(nats_server: NatsServer) -> None:
    one = Process(nats_server).listen()
    times: list[datetime] = []
    async with running(one):
        for order in ("o-1", "o-2", "o-3"):
            times.append(datetime.now(UTC))  # noqa: TID251 - the server's times are real
            await one.emit(order)
            await asyncio.sleep(0.02)
        assert await one.until("o-1", "o-2", "o-3")
        one.got.clear()

        assert await one.events.replay(one.name, times[1], until=times[2]) == 1
        assert one.got == ["o-2"]
        assert await one.events.replay(one.name, "all", until=times[0]) == 0
        with pytest.raises(DeclarationError, match="nothing to replay"):
            await one.events.replay(one.name, "new")


@pytest.mark.parametrize("driver", ["jetstream", "memory"])
async def test_a_replay_whose_service_stops_says_how_far_it_was(
    nats_server: NatsServer, driver: str
) -> None:
    one = Process(nats_server, driver=driver)
    began = asyncio.Event()

    async def slow(event: OrderPlaced, context: Context) -> None:
        one.got.append(event.order_id)
        if context.is_replay:
            began.set()
            await asyncio.Event().wait()

    one.events.subscribe(OrderPlaced, slow, concurrency=1)
    async with running(one):
        await one.emit("o-1", "o-2", "o-3")
        assert await one.until("o-1", "o-2", "o-3")
        one.got.clear()
        replaying = asyncio.gather(one.events.replay(slow, "all"), return_exceptions=True)
        await began.wait()
        await one.events.stop()
        async with asyncio.timeout(60):
            (ended,) = await replaying

    assert isinstance(ended, DriverError)
    assert "replay of listener 'slow' ended early: the service stopped when 1 of 3" in str(ended)
    assert one.got == ["o-1"]
    if driver == "jetstream":
        assert set(await consumers(nats_server)) == {"shop__slow"}


async def test_a_replay_whose_durable_is_deleted_does_not_pass_for_done() -> None:
    driver = MemoryDriver()
    events = EventService("shop", settings=Settings(grace=2), driver=driver)
    runs: list[str] = []

    async def hear(event: OrderPlaced, context: Context) -> None:
        runs.append(event.order_id)
        if context.is_replay:
            (gone,) = set(driver.broker.durables) - {"shop__hear"}
            driver.broker.durables.pop(gone)

    events.subscribe(OrderPlaced, hear, concurrency=1)
    async with events:
        await events.emit(OrderPlaced(order_id="o-1"))
        async with asyncio.timeout(60):
            with pytest.raises(DriverError, match="its durable was deleted"):
                await events.replay(hear, "all")
