"""Delays and recurring events on the drivers of one process, with a clock that a test moves."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eventbus import Context, Event, EventService
from eventbus.drivers.base import TopologyChanged
from eventbus.drivers.memory.broker import MemoryBroker, Sizes
from eventbus.drivers.memory.driver import MemoryDriver
from eventbus.drivers.sync import SyncDriver, SyncHub
from eventbus.errors import BackpressureError, DeclarationError
from eventbus.telemetry.signals import Cancelled, Happened, Settled, TickFailed
from eventbus.telemetry.spans import ConsumeTracing, EmitTracing
from eventbus.testing.clock import VirtualClock

START = datetime(2026, 3, 27, 12, tzinfo=UTC)


class MailDue(Event, name="mail.due"):
    to: str


class ReportDue(Event, name="report.due"):
    day: str = ""


class Desk:
    """Services on one driver and one clock, and what their listeners got, with the time."""

    def __init__(self, kind: str = "memory") -> None:
        self.clock = VirtualClock(START)
        self.broker = MemoryBroker(self.clock)
        self.hub = SyncHub(self.clock)
        self.kind = kind
        self.got: list[tuple[str, datetime]] = []
        self.ids: list[str] = []
        self.told: list[Happened] = []

    def service(self, name: str = "desk") -> EventService:
        driver = MemoryDriver(self.broker) if self.kind == "memory" else SyncDriver(self.hub)
        return EventService(name, driver=driver, clock=self.clock, observers=[self.told.append])

    def listening(self, name: str = "desk") -> EventService:
        service = self.service(name)
        service.subscribe(MailDue)(self.take(lambda event: event.to))
        return service

    def reporting(self) -> EventService:
        service = self.service("reader")
        service.subscribe(ReportDue)(self.take(lambda event: event.day))
        return service

    def take(self, text: Callable[..., str]) -> Callable[..., Awaitable[None]]:
        async def take(event: Event, context: Context) -> None:
            self.got.append((text(event), self.clock.now()))
            self.ids.append(context.id)

        return take


@pytest.fixture(params=["memory", "sync"])
def desk(request: pytest.FixtureRequest) -> Desk:
    return Desk(request.param)


async def test_a_delayed_event_comes_at_its_time_to_the_microsecond(desk: Desk) -> None:
    async with desk.listening() as events:
        receipt = await events.emit(MailDue(to="ada"), delay="61m")
        await events.emit(MailDue(to="eve"), at=START + timedelta(hours=1))
        await desk.clock.advance(hours=1, seconds=-0.001)
        before = list(desk.got)
        await desk.clock.advance(hours=1)

    assert before == []
    assert receipt.scheduled is not None
    assert desk.got == [
        ("eve", START + timedelta(hours=1)),
        ("ada", receipt.scheduled.at),
    ]


async def test_a_delayed_event_stays_in_its_trace_and_is_linked_to_its_emit(desk: Desk) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    events = desk.listening()
    events.use(middleware=[ConsumeTracing(provider)], emit=[EmitTracing(provider)])

    async with events:
        receipt = await events.emit(MailDue(to="ada"), delay=60, correlation_id="story-1")
        await desk.clock.advance(61)

    send, process = exporter.get_finished_spans()
    assert (send.name, process.name) == ("send mail.due", "process mail.due")
    assert desk.ids == [receipt.id]
    assert process.context.trace_id == send.context.trace_id
    assert [link.context.span_id for link in process.links] == [send.context.span_id]
    assert process.attributes is not None
    assert process.attributes["messaging.message.conversation_id"] == "story-1"
    (settled,) = (one for one in desk.told if isinstance(one, Settled))
    assert settled.end_to_end == 0.0  # from its time, not from the emit


async def test_it_is_cancelled_or_moved_until_it_has_come(desk: Desk) -> None:
    async with desk.listening() as events:
        gone = await events.emit(MailDue(to="gone"), delay=60)
        moved = await events.emit(MailDue(to="moved"), delay=60)
        late = await events.emit(MailDue(to="late"), delay=1)
        await desk.clock.advance(2)

        assert await events.cancel(gone.scheduled)
        assert await events.cancel(gone.scheduled)
        assert not await events.cancel(late.scheduled)
        assert await events.reschedule(moved.scheduled, delay=3600)
        assert await events.reschedule(gone.scheduled, delay=1) is None
        await desk.clock.advance(hours=1)

    assert desk.got == [
        ("late", START + timedelta(seconds=1)),
        ("moved", START + timedelta(seconds=3602)),
    ]
    assert desk.told.count(Cancelled(gone.id, "desk")) == 2


async def test_the_same_id_is_one_event_until_the_window_is_over(desk: Desk) -> None:
    async with desk.listening() as events:
        await events.emit(MailDue(to="ada"), id="mail-1", delay="1h")
        await desk.clock.advance(minutes=30)
        again = await events.emit(MailDue(to="ada"), id="mail-1", delay="1h")
        await desk.clock.advance(hours=2)
        await events.emit(MailDue(to="ada"), id="mail-1", delay="1h")
        await desk.clock.advance(hours=2)

    assert again.duplicate
    assert desk.got == [
        ("ada", START + timedelta(hours=1)),
        ("ada", START + timedelta(hours=3, minutes=30)),
    ]


async def test_what_waits_is_older_than_events_get_and_takes_room() -> None:
    clock = VirtualClock(START)
    sizes = Sizes(max_age=600, later_max_bytes=1000)
    driver = MemoryDriver(MemoryBroker(clock, sizes=sizes))
    got: list[str] = []
    events = EventService("desk", driver=driver, clock=clock)

    @events.subscribe(MailDue)
    async def take(event: MailDue) -> None:
        got.append(event.to)

    async with events:
        await events.emit(MailDue(to="ada"), delay="20m")
        with pytest.raises(BackpressureError, match="later_max_bytes"):
            await events.emit(MailDue(to="e" * 900), delay="20m")
        await clock.advance(minutes=30)

    assert got == ["ada"]


async def test_an_event_expires_also_while_it_waits_for_its_listener() -> None:
    desk = Desk()
    async with desk.listening() as events:
        await events.emit(MailDue(to="ada"), delay="10m", expires="5m")
        desk.broker.pause("desk__take", START + timedelta(minutes=20))
        await desk.clock.advance(minutes=30)

    (letter,) = desk.broker.dead_letters()
    assert letter.headers["eventbus-dead-reason"] == "expired"
    assert desk.got == []


async def test_cron_emits_one_event_a_tick_however_many_processes_declare_it(desk: Desk) -> None:
    def declared() -> EventService:
        service = desk.service()

        @service.cron("*/20 13 * * *", timezone="Europe/Paris")
        def report(at: datetime) -> ReportDue:
            return ReportDue(day=f"{at:%H:%M}")

        return service

    async with desk.reporting(), declared(), declared(), declared():
        await desk.clock.advance(hours=2)

    assert [day for day, _ in desk.got] == ["12:20", "12:40"]
    assert [f"{at:%H:%M}" for _, at in desk.got] == [day for day, _ in desk.got]
    assert len(set(desk.ids)) == 2


async def test_every_ticks_and_the_event_is_new_each_time(desk: Desk) -> None:
    service = desk.service()
    service.every("1s")(ReportDue)

    async with desk.reporting(), service:
        await desk.clock.advance(10.5)

    assert [at for _, at in desk.got] == [START + timedelta(seconds=1 + n) for n in range(10)]
    assert len(set(desk.ids)) == 10


async def test_while_no_process_runs_one_tick_comes_and_the_others_are_left_out(
    desk: Desk,
) -> None:
    def declared() -> EventService:
        service = desk.service()
        service.every("1m", name="report")(ReportDue)
        return service

    async with desk.reporting():
        async with declared():
            await desk.clock.advance(1)
        await desk.clock.advance(minutes=5)
        down = list(desk.got)
        async with declared():
            await desk.clock.advance(minutes=1)

    assert [at for _, at in down] == [START + timedelta(minutes=1)]
    assert [at for _, at in desk.got[1:]] == [START + timedelta(minutes=6)]


async def test_a_changed_rule_takes_the_place_of_the_old_one_at_once(desk: Desk) -> None:
    old, new = desk.service(), desk.service()
    old.every("24m", name="report")(ReportDue)
    new.every("1m", name="report")(ReportDue)

    async with desk.reporting(), old:
        await desk.clock.advance(seconds=5)
        async with new:  # a rolling deploy: the old one still runs
            await desk.clock.advance(minutes=2)

    assert [at for _, at in desk.got] == [
        START + timedelta(minutes=1),
        START + timedelta(minutes=2),
    ]


async def test_going_back_to_the_rule_before_loses_no_tick(desk: Desk) -> None:
    def declared(interval: str) -> EventService:
        service = desk.service()
        service.every(interval, name="report")(ReportDue)
        return service

    async with desk.reporting():
        for interval in ("1m", "2m", "1m"):
            async with declared(interval):
                await desk.clock.advance(seconds=1)
        await desk.clock.advance(minutes=1)

    assert [at for _, at in desk.got] == [START + timedelta(minutes=1)]


async def test_what_is_not_declared_any_more_is_reported_and_comes_a_last_time(
    desk: Desk,
) -> None:
    service = desk.service()
    service.every("1m", name="report")(ReportDue)

    async with desk.reporting():
        async with service:
            await desk.clock.advance(1)
        async with desk.service():
            await desk.clock.advance(minutes=3)

    assert [at for _, at in desk.got] == [START + timedelta(minutes=1)]
    (orphan,) = (
        one for one in desk.told if isinstance(one, TopologyChanged) and "recurring" in one.thing
    )
    assert orphan.thing == "recurring event 'report'"
    assert "eventbus schedule cancel desk report" in orphan.change


async def test_a_tick_that_is_cancelled_is_skipped(desk: Desk) -> None:
    service = desk.service()
    service.every("1m", name="report")(ReportDue)

    async with desk.reporting(), service:
        await desk.clock.advance(1)
        schedules = service._connections.driver.schedules  # type: ignore[union-attr]
        (waiting,) = [one async for one in schedules.find("events-sched.>")]
        assert await schedules.cancel(waiting)
        await desk.clock.advance(minutes=2)

    assert [at for _, at in desk.got] == [START + timedelta(minutes=2)]


async def test_a_function_that_fails_is_told_and_tried_again(desk: Desk) -> None:
    service = desk.service()
    calls = 0

    @service.every("1m")
    def report(at: datetime) -> ReportDue:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise RuntimeError("no")
        return ReportDue()

    async with desk.reporting(), service:
        await desk.clock.advance(minutes=1)

    assert [at for _, at in desk.got] == [START + timedelta(minutes=1)]
    failed = [one for one in desk.told if isinstance(one, TickFailed)]
    assert [(one.service, one.recurring, str(one.error)) for one in failed] == [
        ("desk", "report", "no")
    ] * 2


async def test_what_makes_no_event_is_refused(desk: Desk) -> None:
    events = desk.service()

    with pytest.raises(DeclarationError, match="can't be async"):

        @events.every("1m")
        async def later() -> ReportDue: ...

    with pytest.raises(DeclarationError, match="tick's time or nothing"):
        events.every("1m", name="report")(lambda at, more: ReportDue())  # type: ignore[arg-type, misc]
    with pytest.raises(DeclarationError, match="tick's time or nothing"):
        events.every("1m")(MailDue)
    events.every("1m")(ReportDue)
    with pytest.raises(DeclarationError, match="two recurring events are called 'ReportDue'"):
        events.every("1m")(ReportDue)
    async with events:
        with pytest.raises(DeclarationError, match="is running"):
            events.every("1m")
