"""Pausing a listener on the server: for every process of its service, and as no fault of theirs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from eventbus import Event, EventService
from eventbus.clock import SystemClock
from eventbus.embedded import NatsServer
from eventbus.errors import TopologyError
from eventbus.ops import listeners
from eventbus.ops.connect import connected
from eventbus.settings import Settings
from eventbus.telemetry.conditions import DurableMeasured
from eventbus.worker import gauges
from tests.waiting import eventually

pytestmark = [pytest.mark.nats]


class MailDue(Event, name="mail.due"):
    number: int


class MailUrgent(Event, name="mail.urgent", priority="high"):
    number: int


class Replica:
    """One process's service, and what its listener saw."""

    def __init__(self, settings: Settings) -> None:
        self.seen: list[int] = []
        self.measured: list[DurableMeasured] = []
        self.events = EventService("mail", settings=settings)
        self.events.subscribe(MailDue, self.send)
        self.events.observe(self._observe)

    def _observe(self, happened: object) -> None:
        if isinstance(happened, DurableMeasured):
            self.measured.append(happened)

    async def send(self, event: MailDue) -> None:
        self.seen.append(event.number)


@pytest.fixture
def settings(nats_server: NatsServer) -> Settings:
    return Settings(nats_url=nats_server.url, grace=2)


@asynccontextmanager
async def running(*replicas: Replica) -> AsyncIterator[None]:
    for one in replicas:
        await one.events.start()
    try:
        yield
    finally:
        for one in replicas:
            await one.events.stop()


async def test_a_paused_listener_gets_nothing_in_any_process_until_it_goes_on(
    settings: Settings,
) -> None:
    one, other = Replica(settings), Replica(settings)

    async def all_seen() -> bool:
        return sorted([*one.seen, *other.seen]) == list(range(20))

    async with running(one, other):
        async with connected(settings) as operator:
            until = await listeners.pause(operator, "mail", "send", seconds=600)
        for number in range(20):
            await one.events.emit(MailDue(number=number))
        async with connected(settings) as operator:
            listed = await listeners.listed(operator)
            waiting = [*one.seen, *other.seen]
            was_paused = [await listeners.resume(operator, "mail", "send") for _ in range(2)]

        assert until is not None
        assert was_paused == [True, False]
        assert [(view.listener, view.pending, view.paused) for view in listed] == [
            ("send", 20, True)
        ]
        assert waiting == []
        await eventually(all_seen)


async def test_a_listener_with_a_durable_for_each_priority_is_paused_as_one(
    settings: Settings,
) -> None:
    seen: list[str] = []
    events = EventService("mail", settings=settings)

    @events.subscribe("mail.*")
    async def note(event: MailDue | MailUrgent) -> None:
        seen.append(event.event_spec.name)

    async def all_seen() -> bool:
        return sorted(seen) == ["mail.due", "mail.urgent"]

    async with events, connected(settings) as operator:
        await listeners.pause(operator, "mail", "note")
        for event in (MailDue(number=1), MailUrgent(number=2)):
            await events.emit(event)
        (paused,) = await listeners.listed(operator)
        await listeners.resume(operator, "mail", "note-high")
        (partly,) = await listeners.listed(operator)
        await listeners.resume(operator, "mail", "note")

        assert [one.durable for one in paused.durables] == ["mail__note", "mail__note-high"]
        assert (paused.listener, paused.paused) == ("note", True)
        assert [one.pending for one in paused.durables] == [2, 1]
        assert not partly.paused
        await eventually(all_seen)


async def test_every_process_of_a_fanout_listener_is_paused(settings: Settings) -> None:
    seen: list[int] = []
    processes = [EventService("mail", settings=settings) for _ in range(2)]
    for number, events in enumerate(processes):

        async def hear(event: MailDue, number: int = number) -> None:
            seen.append(number)

        events.subscribe(MailDue, hear, name="hear", mode="fanout")

    async def all_seen() -> bool:
        return sorted(seen) == [0, 1]

    async with processes[0], processes[1], connected(settings) as operator:
        await listeners.pause(operator, "mail", "hear")
        await processes[0].emit(MailDue(number=1))
        (paused,) = await listeners.listed(operator)
        was_paused = await listeners.resume(operator, "mail", "hear")

        assert (len(paused.durables), paused.pending, paused.paused) == (2, 2, True)
        assert was_paused
        await eventually(all_seen)


async def test_a_pause_ends_by_itself(settings: Settings) -> None:
    one = Replica(settings)

    async def seen() -> bool:
        return one.seen == [1]

    async with running(one):
        async with connected(settings) as operator:
            until = await listeners.pause(operator, "mail", "send", seconds=1)
        await one.events.emit(MailDue(number=1))
        await eventually(seen)

        assert until is not None
        assert SystemClock().now() >= until


async def test_it_is_ready_while_it_is_paused_and_tells_that_it_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauges, "EVERY", 0.1)
    one = Replica(settings)

    async def told() -> bool:
        return bool(one.measured) and one.measured[-1].durable.paused

    async with running(one):
        async with connected(settings) as operator:
            until = await listeners.pause(operator, "mail", "send")
        await one.events.emit(MailDue(number=1))

        assert until is None
        await eventually(told)
        await asyncio.sleep(6)  # longer than a silent pull request may be
        assert one.events.status().ready
        assert one.measured[-1].durable.pending == 1
        oldest = one.measured[-1].oldest_unread
        assert oldest is not None
        assert oldest > 3


async def test_a_listener_that_is_not_there_is_named(settings: Settings) -> None:
    async with running(Replica(settings)), connected(settings) as operator:
        with pytest.raises(TopologyError, match=r"'mail sned': .*did you mean 'mail send'"):
            await listeners.pause(operator, "mail", "sned")
