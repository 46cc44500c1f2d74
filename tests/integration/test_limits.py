"""Limits on a real server: two processes of a service keep to them together."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from eventbus import Event, EventService
from eventbus.delivery import Outcome
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.embedded import NatsServer
from eventbus.middleware.overlap import WithoutOverlapping
from eventbus.middleware.throttle import Throttle
from eventbus.middleware.unique import Unique
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled
from tests.waiting import eventually

pytestmark = [pytest.mark.nats]


class MailDue(Event, name="mail.due", key="user_id"):
    user_id: str
    number: int = 0


class Log:
    """What the listeners of all processes did."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.running: list[str] = []
        self.overlaps = 0
        self.settled: list[Settled] = []

    async def send(self, event: MailDue) -> None:
        self.began.append(time.monotonic())
        self.overlaps += event.user_id in self.running
        self.running.append(event.user_id)
        await asyncio.sleep(0.02)
        self.running.remove(event.user_id)

    def observe(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            self.settled.append(happened)

    def ended(self, *outcomes: Outcome) -> int:
        return sum(one.outcome in outcomes for one in self.settled)


@asynccontextmanager
async def processes(
    server: NatsServer, log: Log, *layers: Any, count: int = 2
) -> AsyncIterator[EventService]:
    """Work a listener in some processes, and give a service that emits."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            events = EventService("mail", settings=Settings(nats_url=server.url, grace=2))
            events.subscribe(MailDue, log.send, name="send", middleware=layers, concurrency=4)
            events.observe(log.observe)
            await stack.enter_async_context(events)
        yield events


async def test_two_processes_share_a_rate(nats_server: NatsServer) -> None:
    log = Log()
    async with processes(nats_server, log, Throttle("5/500ms")) as events:
        began = time.monotonic()
        await events.emit_many([MailDue(user_id=f"u-{one}") for one in range(20)])
        await eventually(_true(lambda: log.ended(Outcome.OK) == 20), 40)

    # From the first moment on: a busy machine begins later than it took the place, never earlier.
    places = [0.5 * (n // 5) for n in range(20)]
    early = [at for at, one in zip(places, sorted(log.began), strict=True) if one - began < at]
    assert early == []
    assert [one.attempt for one in log.settled] == [1] * 20


async def test_runs_of_one_key_do_not_overlap_in_two_processes(nats_server: NatsServer) -> None:
    log = Log()
    layer = WithoutOverlapping(by="user_id", retry_after=0.1)
    async with processes(nats_server, log, layer) as events:
        await events.emit_many([MailDue(user_id="u-1", number=one) for one in range(10)])
        await eventually(_true(lambda: log.ended(Outcome.OK) == 10), 40)

    assert log.overlaps == 0
    assert [one.attempt for one in log.settled] == [1] * 10


async def test_one_event_of_a_key_is_handled_and_the_others_are_counted(
    nats_server: NatsServer,
) -> None:
    log = Log()
    async with processes(nats_server, log, Unique(for_="1h", by="user_id")) as events:
        await events.emit_many([MailDue(user_id="u-1", number=one) for one in range(6)])
        await eventually(_true(lambda: len(log.settled) == 6), 20)

    assert (log.ended(Outcome.OK), log.ended(Outcome.DROPPED)) == (1, 5)


async def test_a_record_is_kept_for_its_time_and_changed_over_its_revision(
    nats_server: NatsServer,
) -> None:
    async with JetStreamDriver(Settings(nats_url=nats_server.url), service="mail") as driver:
        log = driver.limits
        assert await log.read("mail__send.limit.a") is None
        first = await log.write("mail__send.limit.a", b"1", over=0, keep=0.5)

        assert first is not None
        assert await log.write("mail__send.limit.a", b"2", over=0, keep=60) is None
        record = await log.read("mail__send.limit.a")
        assert record is not None
        assert (record.body, record.revision) == (b"1", first)

        async def gone() -> bool:
            return await log.read("mail__send.limit.a") is None

        await eventually(gone, 20)
        assert await log.write("mail__send.limit.a", b"3", over=0, keep=60) is not None


def _true(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return condition()

    return ask
