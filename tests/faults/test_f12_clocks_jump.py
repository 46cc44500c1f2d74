"""F12: the wall clock is an hour wrong, or jumps, in a relay, an emitter or a worker."""

import itertools
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eventbus import Context, Event, EventService, Retry
from eventbus.clock import Clock, SystemClock
from eventbus.delivery import Outcome, Reason
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from eventbus.telemetry.outbox import OutboxMeasured, Relayed
from eventbus.telemetry.signals import Settled
from tests.faults.harness.bank import Bank, service
from tests.faults.harness.ground import Ground
from tests.faults.harness.step import StepTaken
from tests.waiting import eventually

if TYPE_CHECKING:
    from eventbus.telemetry.signals import Happened

pytestmark = [pytest.mark.faults, pytest.mark.nats]


class JumpingClock(SystemClock):
    """A clock that somebody sets wrongly, and right again, all the time."""

    def __init__(self) -> None:
        self._jumps = itertools.cycle((0, 3600, -3600, 600))

    def now(self) -> datetime:
        """Return a time that may be an hour off."""
        return super().now() + timedelta(seconds=next(self._jumps))


async def test_f12_what_is_committed_goes_while_the_clock_jumps(
    nats_server: NatsServer, database_url: str, tmp_path: Path
) -> None:
    told: list[Happened] = []
    steps = [StepTaken(thread=f"t{n % 5}", number=n) for n in range(60)]
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        settings = service(nats_server.url, database_url, relay=True).settings
        events = EventService(
            "bank", settings=settings, relay=True, clock=JumpingClock(), observers=[told.append]
        )
        async with events:
            for step in steps:
                async with bank.engine.begin() as connection, events.transaction(connection):
                    await events.emit(step)
            await bank.relayed()

            async def measured() -> bool:
                return any(isinstance(one, OutboxMeasured) for one in told)

            await eventually(measured)

    found = [one.mark for one in await Ground(nats_server.url).stored()]
    assert sorted(found) == sorted(step.mark for step in steps)
    relayed = [one for one in told if isinstance(one, Relayed)]
    assert len(relayed) == 60
    assert all(one.waited >= 0 for one in relayed)
    assert all(one.oldest >= 0 for one in told if isinstance(one, OutboxMeasured))


class CodeSent(Event, name="code.sent"):
    """Something that may expire."""

    number: int


class WrongClock(SystemClock):
    """A clock that is set wrongly."""

    def __init__(self, hours: float) -> None:
        self._wrong = timedelta(hours=hours)

    def now(self) -> datetime:
        """Return a time that is hours off."""
        return super().now() + self._wrong


CLOCKS: Mapping[str, Callable[[], Clock]] = {
    "ahead": lambda: WrongClock(1),
    "behind": lambda: WrongClock(-1),
    "jumping": JumpingClock,
}


@pytest.fixture(params=CLOCKS)
def clock(request: pytest.FixtureRequest) -> Clock:
    """Give a clock that can't be trusted."""
    return CLOCKS[request.param]()


def settings(server: NatsServer) -> Settings:
    return Settings(nats_url=server.url, max_bytes=2**26, grace=5)


async def test_f12_what_a_worker_s_wrong_clock_says_is_over_is_handled_all_the_same(
    nats_server: NatsServer, clock: Clock
) -> None:
    told: list[Happened] = []
    got: list[tuple[int, int, datetime]] = []
    worker = EventService(
        "worker", settings=settings(nats_server), clock=clock, observers=[told.append]
    )
    emitter = EventService("emitter", settings=settings(nats_server))

    @worker.subscribe(CodeSent, retry=Retry(attempts=3, start=0.1, jitter="none"), ack_wait=2)
    async def take(event: CodeSent, context: Context) -> None:
        got.append((event.number, context.attempt, context.time))
        if context.attempt == 1:
            raise ValueError

    async def settled() -> bool:
        ended = [one.outcome for one in told if isinstance(one, Settled)]
        return ended.count(Outcome.OK) == 20 and Outcome.DEAD in ended

    async with worker, emitter:
        before = SystemClock().now()
        past = before - timedelta(minutes=30)
        await emitter.emit(CodeSent(number=-1), expires=past)
        for number in range(20):
            await emitter.emit(CodeSent(number=number), expires="10m")
        await eventually(settled, 60)
        after = SystemClock().now()

    assert sorted((number, attempt) for number, attempt, _ in got) == [
        (number, attempt) for number in range(20) for attempt in (1, 2)
    ]
    assert all(before <= time <= after for _, _, time in got)
    (dead,) = [one for one in told if isinstance(one, Settled) and one.outcome is Outcome.DEAD]
    assert dead.reason is Reason.EXPIRED


async def test_f12_what_has_a_time_comes_by_the_server_s_clock_whatever_the_emitter_s_says(
    nats_server: NatsServer, clock: Clock
) -> None:
    came: list[tuple[int, datetime]] = []
    emitter = EventService("emitter", settings=settings(nats_server), clock=clock)
    listener = EventService("listener", settings=settings(nats_server))

    @listener.subscribe(CodeSent)
    async def take(event: CodeSent) -> None:
        came.append((event.number, SystemClock().now()))

    async def all_came() -> bool:
        return len(came) >= len(expected)

    async with listener, emitter:
        at = SystemClock().now() + timedelta(seconds=2)
        await emitter.emit(CodeSent(number=1), at=at)
        moved = await emitter.emit(CodeSent(number=2), at=at + timedelta(hours=5))
        gone = await emitter.emit(CodeSent(number=3), at=at + timedelta(seconds=0.1))
        await emitter.emit(CodeSent(number=4), at=at + timedelta(seconds=1))
        await emitter.reschedule(moved.scheduled, at=at)
        # A machine that stands still for two seconds is too late.
        expected = [1, 2, 4] if await emitter.cancel(gone.scheduled) else [1, 2, 3, 4]
        await eventually(all_came, 60)

    assert sorted(number for number, _ in came) == expected
    assert all(time >= at for _, time in came)
