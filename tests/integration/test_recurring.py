"""Recurring events against the real server: once per cluster, through kills and changes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta

import pytest

from eventbus import Context, Event, EventService
from eventbus.clock import Clock, SystemClock
from eventbus.drivers.base import TopologyChanged
from eventbus.embedded import NatsServer
from tests.integration.rig import settings_of
from tests.waiting import comes_true, eventually

pytestmark = [pytest.mark.nats]


class SweepDue(Event, name="sweep.due"):
    at: datetime


class WrongClock(SystemClock):
    """A clock whose time of day is wrong, and jumps."""

    def __init__(self, wrong: timedelta) -> None:
        self.wrong = wrong

    def now(self) -> datetime:
        return super().now() + self.wrong


def sweeper(server: NatsServer, interval: str = "1s", clock: Clock | None = None) -> EventService:
    """Return a process of the service that sweeps."""
    service = EventService("sweeper", settings=settings_of(server.url), clock=clock)
    service.every(interval, name="sweep")(lambda at: SweepDue(at=at))
    return service


class Reader:
    """What the listener of another service got: the ticks, and when."""

    def __init__(self) -> None:
        self.ticks: list[datetime] = []
        self.late: list[timedelta] = []
        self.ids: Counter[str] = Counter()

    async def take(self, event: SweepDue, context: Context) -> None:
        self.ticks.append(event.at)
        self.late.append(SystemClock().now() - event.at)
        self.ids[context.id] += 1
        assert context.time == event.at

    async def has(self, count: int, seconds: float = 40) -> bool:
        async def came() -> bool:
            return len(self.ticks) >= count

        return await comes_true(came, seconds)


@asynccontextmanager
async def reading(server: NatsServer) -> AsyncIterator[Reader]:
    reader = Reader()
    service = EventService("reader", settings=settings_of(server.url))
    service.subscribe(SweepDue)(reader.take)
    async with service:
        yield reader


async def test_a_tick_is_one_event_however_many_processes_declare_it(
    nats_server: NatsServer,
) -> None:
    async with reading(nats_server) as reader, AsyncExitStack() as processes:
        for _ in range(4):
            await processes.enter_async_context(sweeper(nats_server))
        assert await reader.has(5)

    assert set(reader.ids.values()) == {1}
    assert len(set(reader.ticks)) == len(reader.ticks)
    assert reader.ticks == sorted(reader.ticks)
    assert all(one.microsecond == 0 for one in reader.ticks)
    assert min(reader.late) >= timedelta(0)


async def test_ticks_go_by_the_clock_of_the_server(nats_server: NatsServer) -> None:
    ahead, behind = WrongClock(timedelta(hours=1)), WrongClock(timedelta(minutes=-10))

    async with (
        reading(nats_server) as reader,
        sweeper(nats_server, clock=ahead),
        sweeper(nats_server, clock=behind),
    ):
        assert await reader.has(2)
        ahead.wrong, behind.wrong = timedelta(minutes=-3), timedelta(days=1)  # clocks jump
        assert await reader.has(5)

    assert set(reader.ids.values()) == {1}
    assert all(timedelta(0) <= one < timedelta(seconds=30) for one in reader.late)


async def test_ticks_go_on_after_a_kill_of_the_server(nats_server: NatsServer) -> None:
    async with reading(nats_server) as reader, sweeper(nats_server), sweeper(nats_server):
        assert await reader.has(2)
        nats_server.kill()
        await asyncio.sleep(0.5)
        nats_server.restart()
        before = len(reader.ticks)
        assert await reader.has(before + 3)

    assert set(reader.ids.values()) == {1}


async def test_one_tick_comes_while_no_process_runs(nats_server: NatsServer) -> None:
    async with reading(nats_server) as reader:
        async with sweeper(nats_server, "2s"):
            assert await reader.has(1)
        before = len(reader.ticks)
        await asyncio.sleep(4.5)
        down = len(reader.ticks) - before

    assert down <= 1  # none where it stopped in the moment between two
    assert set(reader.ids.values()) == {1}


async def test_what_is_not_declared_any_more_is_reported(nats_server: NatsServer) -> None:
    told: list[object] = []

    async with sweeper(nats_server, "1h") as service:
        emitter = service._emitter
        assert emitter is not None

        async def waits() -> bool:
            return (
                await emitter.driver.schedules.read("events-sched.sweeper.tick.sweep") is not None
            )

        await eventually(waits, 30)
    without = EventService(
        "sweeper", settings=settings_of(nats_server.url), observers=[told.append]
    )
    async with without:

        async def reported() -> bool:
            return any(isinstance(one, TopologyChanged) and "sweep" in one.thing for one in told)

        await eventually(reported, 30)
