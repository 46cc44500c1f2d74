"""A breaker on a real server: while a dependency is down nothing burns, and then all is handled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from eventbus import Event, EventService, Retry
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.middleware.breaker import Breaker, BreakerState
from eventbus.settings import Settings
from eventbus.telemetry.conditions import BreakerChanged
from eventbus.telemetry.signals import Happened, Received, Settled
from tests.waiting import eventually

pytestmark = [pytest.mark.nats]

TOTAL = 100


class MailDue(Event, name="mail.due", key="number"):
    number: str


class Dependency:
    """What a listener needs, and what it saw."""

    def __init__(self) -> None:
        self.is_down = False
        self.runs = 0
        self.done: set[str] = set()
        self.told: list[Happened] = []

    async def send(self, event: MailDue) -> None:
        self.runs += 1
        await asyncio.sleep(0.001)
        if self.is_down:
            raise ConnectionError("refused")
        self.done.add(event.number)

    @property
    def states(self) -> list[BreakerState]:
        return [one.state for one in self.told if isinstance(one, BreakerChanged)]

    def ended(self, *outcomes: Outcome) -> int:
        settled = (one for one in self.told if isinstance(one, Settled))
        return sum(one.outcome in outcomes for one in settled)


def service(server: NatsServer, needs: Dependency, **options: object) -> EventService:
    events = EventService("mail", settings=Settings(nats_url=server.url, grace=2))
    given: dict[str, object] = {
        "retry": Retry(attempts=2, start=0.05, jitter="none"),
        "breaker": Breaker(on=(ConnectionError,), reset_after=0.4),
        "concurrency": 8,
    }
    events.subscribe(MailDue, needs.send, **(given | options))  # type: ignore[call-overload]
    events.observe(needs.told.append)
    return events


async def emit(events: EventService, *numbers: int) -> None:
    await events.emit_many([MailDue(number=str(one)) for one in numbers])


@pytest.mark.parametrize("ordered", [False, True])
async def test_nothing_burns_while_a_dependency_is_down(
    nats_server: NatsServer, ordered: bool
) -> None:
    needs = Dependency()
    async with service(nats_server, needs, ordered=ordered) as events:
        needs.is_down = True
        await emit(events, *range(TOTAL))
        # The first failure opens it, then three probes fail: more than the attempts there are.
        await eventually(_true(lambda: needs.states.count(BreakerState.OPEN) >= 4), 15)
        burnt, ready = needs.runs, events.status().ready
        pulled = sum(isinstance(one, Received) for one in needs.told)
        needs.is_down = False
        await eventually(_true(lambda: len(needs.done) == TOTAL), 20)

        assert ready
        assert burnt <= 8 + 4
        # An ordered listener's events stay in hand, in their lanes.
        assert ordered or pulled <= 8 + 4
        assert needs.ended(Outcome.DEAD) == 0
        assert needs.ended(Outcome.OK) == TOTAL
        assert needs.states[-1] is BreakerState.CLOSED


async def test_a_listener_without_one_gives_up_on_them(nats_server: NatsServer) -> None:
    needs = Dependency()
    async with service(nats_server, needs, breaker=None) as events:
        needs.is_down = True
        await emit(events, *range(20))

        await eventually(_true(lambda: needs.ended(Outcome.DEAD) == 20), 15)


async def test_an_event_that_is_at_fault_itself_becomes_a_dead_letter(
    nats_server: NatsServer,
) -> None:
    needs = Dependency()

    async def send(event: MailDue) -> None:
        if event.number == "0":
            raise ConnectionError("always")
        needs.done.add(event.number)

    events = EventService("mail", settings=Settings(nats_url=nats_server.url, grace=2))
    breaker = Breaker(on=(ConnectionError,), reset_after=0.1)
    retry = Retry(attempts=2, start=0.05, jitter="none")
    events.subscribe(MailDue, send, breaker=breaker, retry=retry)
    events.observe(needs.told.append)
    async with events:
        await emit(events, *range(20))

        async def more() -> bool:
            # A dependency that works has more to do than this one event.
            await emit(events, *range(20 + len(needs.done), 22 + len(needs.done)))
            return needs.ended(Outcome.DEAD) == 1

        await eventually(more, 20)


async def test_a_stop_does_not_wait_for_an_open_breaker(nats_server: NatsServer) -> None:
    needs = Dependency()
    needs.is_down = True
    breaker = Breaker(on=(ConnectionError,), reset_after=60)
    async with service(nats_server, needs, breaker=breaker) as events:
        await emit(events, 1, 2)
        await eventually(_true(lambda: bool(needs.states)), 5)

        began = asyncio.get_running_loop().time()
        await events.stop()

        assert asyncio.get_running_loop().time() - began < 30


def _true(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return condition()

    return ask
