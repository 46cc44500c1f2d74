"""What is delayed on the sync driver: it runs at its time in this process, or says that it won't."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from eventbus import Event, EventService, Settings
from eventbus.configuration import DriverConfig
from eventbus.delivery import Outcome
from eventbus.drivers import sync
from eventbus.drivers.base import DelayedLost
from eventbus.drivers.sync import SyncDriver, SyncHub
from eventbus.stores.base import Deferred, within
from eventbus.telemetry.signals import Emitted, Happened, Settled
from eventbus.testing.clock import VirtualClock

START = datetime(2026, 3, 27, 12, tzinfo=UTC)


class MailDue(Event, name="mail.due"):
    to: str


class Desk:
    """A service on the sync driver, what it told, and what its listener got."""

    def __init__(self, hub: SyncHub | None = None, clock: VirtualClock | None = None) -> None:
        self.clock = clock or VirtualClock(START)
        self.told: list[Happened] = []
        self.got: list[str] = []
        self.hub = hub or SyncHub(self.clock)
        self.events = EventService(
            "desk",
            settings=Settings(),
            driver=SyncDriver(self.hub),
            clock=self.clock,
            observers=[self.told.append],
        )
        self.events.subscribe(MailDue)(self.take)

    async def take(self, event: MailDue) -> None:
        if event.to == "nobody":
            raise LookupError("no such mailbox")
        if event.to == "slow":
            await asyncio.Event().wait()
        self.got.append(event.to)

    @property
    def lost(self) -> list[tuple[str, str]]:
        return [(one.id, one.problem) for one in self.told if isinstance(one, DelayedLost)]


async def test_what_waits_when_the_last_service_stops_is_told() -> None:
    desk = Desk()
    other = Desk(desk.hub, desk.clock)

    async with desk.events:
        async with other.events:
            await other.events.emit(MailDue(to="ada"), id="mail-1", delay=60)
            cancelled = await other.events.emit(MailDue(to="eve"), id="mail-2", delay=60)
            await other.events.cancel(cancelled.scheduled)
        assert other.lost == []

    assert desk.lost == [("mail-1", "no service is left to run it")]
    assert desk.got == []


async def test_what_one_service_delayed_comes_while_another_one_runs() -> None:
    desk = Desk()
    other = Desk(desk.hub, desk.clock)

    async with desk.events:
        async with other.events:
            receipt = await other.events.emit(MailDue(to="ada"), delay=60)
        await desk.clock.advance(61)

    (settled,) = (one for one in desk.told if isinstance(one, Settled))
    assert (desk.got, desk.lost, settled.id) == (["ada"], [], receipt.id)


async def test_a_listener_that_fails_at_its_time_is_told_and_stops_nothing() -> None:
    desk = Desk()

    async with desk.events:
        await desk.events.emit(MailDue(to="nobody"), id="mail-1", delay=1)
        await desk.events.emit(MailDue(to="ada"), delay=1)
        await desk.clock.advance(2)

    assert desk.lost == [("mail-1", "LookupError: no such mailbox")]
    assert desk.got == ["ada"]


async def test_a_listener_that_doesnt_end_is_cancelled_by_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync, "LAST", 0.0)
    desk = Desk()

    async with desk.events:
        await desk.events.emit(MailDue(to="slow"), id="mail-1", delay=1)
        await desk.clock.advance(2)

    assert desk.lost == [("mail-1", "its listener was cancelled by a stop")]


async def test_the_next_tick_of_what_recurs_is_nothing_lost() -> None:
    desk = Desk()
    desk.events.every("1m", name="mail")(lambda: MailDue(to="ada"))

    async with desk.events:
        await desk.clock.advance(61)

    assert (desk.got, desk.lost) == (["ada"], [])


async def test_a_connection_may_delay_all_that_goes_through_it() -> None:
    clock = VirtualClock(START)
    got: list[datetime] = []
    config = DriverConfig(driver="sync", run_after=30)
    events = EventService(
        "desk", settings=Settings(driver="memory"), drivers={"later": config}, clock=clock
    )

    @events.subscribe(MailDue, connection="later")
    async def take(event: MailDue) -> None:
        got.append(clock.now())

    async with events:
        await events.emit(MailDue(to="ada"), driver="later")
        await clock.advance(60)

    assert got == [START + timedelta(seconds=30)]


class Transaction:
    """A transaction that keeps what is to be done after it."""

    is_open = True

    def __init__(self) -> None:
        self.deferred: list[Deferred] = []

    async def add(self, message: object, *, publish_at: datetime | None = None) -> int:
        raise AssertionError("what runs in this process is in no outbox")

    def defer(self, job: Deferred) -> None:
        self.deferred.append(job)


async def test_in_a_transaction_it_waits_once_that_has_committed() -> None:
    desk = Desk()
    transaction = Transaction()

    async with desk.events:
        with within(transaction):
            receipt = await desk.events.emit(MailDue(to="ada"), delay=60)
        before = list(desk.told)
        for job in transaction.deferred:
            await job()
        await desk.clock.advance(61)

    assert receipt.pending
    assert not [one for one in before if isinstance(one, Emitted)]
    assert desk.got == ["ada"]


async def test_an_event_that_has_expired_is_dropped_and_told() -> None:
    desk = Desk()

    async with desk.events:
        await desk.events.emit(MailDue(to="ada"), expires=START - timedelta(hours=1))
        await desk.events.emit(MailDue(to="eve"), expires=START + timedelta(seconds=1))

    gone, _ = (one for one in desk.told if isinstance(one, Settled))
    assert desk.got == ["eve"]
    assert (gone.outcome, gone.detail) == (
        Outcome.DROPPED,
        "expired at 2026-03-27T11:00:00.000000Z",
    )


async def test_what_names_no_delayed_event_is_refused() -> None:
    desk = Desk()

    async with desk.events:
        with pytest.raises(TypeError, match="5 names no delayed event"):
            await desk.events.cancel(5)  # type: ignore[arg-type]
