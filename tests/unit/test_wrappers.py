"""Drivers around drivers: each changes one thing, and they compose."""

import asyncio
import logging

import pytest

from eventbus import Context, Event, EventService, Retry, Settings
from eventbus.drivers.base import HEADROOM, Driver, Receipt
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from eventbus.drivers.sync import SyncDriver
from eventbus.drivers.wrappers import (
    Debug,
    Fallback,
    Limited,
    Monitored,
    Retrying,
    Timeout,
    Wrapper,
)
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    DeclarationError,
    DriverError,
    EmitUnknown,
    NotConnectedError,
    PayloadTooLargeError,
    UnsupportedError,
)
from eventbus.testing.clock import VirtualClock

SETTINGS = Settings()


class UserCreated(Event, name="user.created"):
    user_id: str


def message(id: str = "1") -> Message:
    return Message("events.user.created", {"ce-id": id, "ce-type": "user.created"}, b"{}", id)


class Moody(Wrapper):
    """A driver that first raises what a test tells it to."""

    def __init__(self, inner: Driver, *raises: Exception) -> None:
        super().__init__(inner)
        self.raises = list(raises)
        self.gate: asyncio.Event | None = None
        self.at_once = self.most = 0

    async def publish(self, message: Message, *, headroom: int = HEADROOM) -> Receipt:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if self.gate is not None:
                await self.gate.wait()
            if self.raises:
                raise self.raises.pop(0)
            return await super().publish(message, headroom=headroom)
        finally:
            self.at_once -= 1


class Ground:
    def __init__(self, *raises: Exception) -> None:
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self.clock)
        self.driver = Moody(MemoryDriver(self.broker), *raises)


def unknown() -> EmitUnknown:
    return EmitUnknown(name="user.created", id="1", after=1, tries=1)


async def test_retrying_hands_over_again_what_may_succeed() -> None:
    ground = Ground(NotConnectedError("gone"), unknown())
    driver = Retrying(
        ground.driver, Retry(attempts=3, delays=(1, 2)), clock=ground.clock, chance=lambda: 0.5
    )

    async with driver, asyncio.TaskGroup() as group:
        emitting = group.create_task(driver.publish(message()))
        await ground.clock.advance(seconds=3)
        assert emitting.done()

    assert emitting.result().sequence == 1


async def test_retrying_gives_up_after_its_attempts_and_never_repeats_what_is_hopeless() -> None:
    too_large = PayloadTooLargeError(name="user.created", size=2, limit=1)
    ground = Ground(NotConnectedError("1"), NotConnectedError("2"), too_large)
    driver = Retrying(ground.driver, Retry(attempts=2, delays=(0,)), clock=ground.clock)

    async with driver:
        with pytest.raises(NotConnectedError, match="2"):
            await driver.publish(message())
        with pytest.raises(PayloadTooLargeError):
            await driver.publish(message())

    assert ground.driver.raises == []


async def test_a_timeout_leaves_the_outcome_unknown() -> None:
    ground = Ground()
    ground.driver.gate = asyncio.Event()
    driver = Timeout(ground.driver, 0.01)

    async with driver:
        with pytest.raises(EmitUnknown, match=r"may or may not be stored"):
            await driver.publish(message())


async def test_limited_lets_no_more_through_at_once() -> None:
    ground = Ground()
    ground.driver.gate = asyncio.Event()
    driver = Limited(ground.driver, 2)

    async with driver, asyncio.TaskGroup() as group:
        tasks = [group.create_task(driver.publish(message(str(one)))) for one in range(5)]
        await ground.clock.settle()
        assert ground.driver.at_once == 2
        ground.driver.gate.set()

    assert sorted(one.result().sequence for one in tasks) == [1, 2, 3, 4, 5]
    assert ground.driver.most == 2


async def test_limited_lets_a_sync_listener_emit_within_its_own_place() -> None:
    heard: list[str] = []
    driver = Limited(SyncDriver(), 1)
    events = EventService("app", settings=SETTINGS, driver=driver)

    @events.subscribe(UserCreated)
    async def user(event: UserCreated, context: Context) -> None:
        heard.append(event.user_id)
        if event.user_id == "u-1":
            await context.emit(UserCreated(user_id="u-2"))

    async with events:
        await events.emit(UserCreated(user_id="u-1"))

    assert heard == ["u-1", "u-2"]


@pytest.mark.parametrize(
    "refusal",
    [
        NotConnectedError("gone"),
        BackpressureError(stream="EVENTS", problem="full"),
    ],
)
async def test_fallback_hands_to_the_second_what_the_first_refused(refusal: DriverError) -> None:
    ground = Ground(refusal)
    second = MemoryBroker(ground.clock)
    driver = Fallback(ground.driver, MemoryDriver(second))

    async with driver:
        await driver.publish(message("1"))
        await driver.publish(message("2"))

    assert [one.id for one in second.messages()] == ["1"]
    assert [one.id for one in ground.broker.messages()] == ["2"]


async def test_fallback_never_hands_over_what_may_be_stored() -> None:
    ground = Ground(unknown())
    second = MemoryBroker(ground.clock)
    driver = Fallback(ground.driver, MemoryDriver(second))

    async with driver:
        with pytest.raises(EmitUnknown):
            await driver.publish(message())

    assert second.messages() == ()


async def test_listeners_hear_both_drivers_of_a_fallback_and_attempts_are_told_apart() -> None:
    ground = Ground()
    second = MemoryBroker(ground.clock)
    driver = Fallback(ground.driver, MemoryDriver(second))
    events = EventService("app", settings=SETTINGS, driver=driver, clock=ground.clock)
    runs: list[tuple[str, str, int]] = []

    @events.subscribe(UserCreated, retry=Retry(attempts=3, delays=(5,)))
    async def user(event: UserCreated, context: Context) -> None:
        runs.append((event.user_id, context.stream, context.attempt))
        if context.attempt < 2:
            raise LookupError

    async with events:
        await events.emit(UserCreated(user_id="u-1"))
        ground.driver.raises.append(NotConnectedError("gone"))
        await events.emit(UserCreated(user_id="u-2"))
        await ground.clock.advance(minutes=1)

    assert sorted(runs) == [
        ("u-1", "EVENTS", 1),
        ("u-1", "EVENTS", 2),
        ("u-2", "fallback~EVENTS", 1),
        ("u-2", "fallback~EVENTS", 2),
    ]


def test_fallback_refuses_a_driver_that_runs_listeners_at_once() -> None:
    with pytest.raises(DeclarationError, match=r"use 'memory'"):
        Fallback(MemoryDriver(), SyncDriver())


async def test_fallback_refuses_ordered_listeners_when_the_service_starts() -> None:
    driver = Fallback(MemoryDriver(), MemoryDriver())
    events = EventService("app", settings=SETTINGS, driver=driver)

    @events.subscribe(UserCreated, ordered=True)
    async def user(event: UserCreated) -> None: ...

    with pytest.raises(UnsupportedError, match="listener 'user'"):
        await events.start()


async def test_monitored_counts_and_measures() -> None:
    ground = Ground(NotConnectedError("gone"))
    driver = Monitored(ground.driver, clock=ground.clock)

    async with driver:
        with pytest.raises(NotConnectedError):
            await driver.publish(message("1"))
        ground.driver.gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(driver.publish(message("2")))
            await ground.clock.advance(seconds=4)
            ground.driver.gate.set()

    counted = driver.monitoring
    assert (counted.dispatches, counted.successes, counted.failures) == (2, 1, 1)
    assert counted.average == 2.0
    driver.reset()
    assert driver.monitoring.dispatches == 0


async def test_debug_logs_each_step_and_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    driver = Debug(MemoryDriver(MemoryBroker(clock)))
    events = EventService("app", settings=SETTINGS, driver=driver, clock=clock)

    @events.subscribe(UserCreated)
    async def user(event: UserCreated) -> None: ...

    with caplog.at_level(logging.DEBUG, logger="eventbus.drivers.wrappers.debug"):
        async with events:
            await events.emit(UserCreated(user_id="secret"))
            await clock.settle()

    text = caplog.text
    for step in ("connecting", "provisioning", "sending events.user.created", "gets EVENTS:1"):
        assert step in text
    assert "secret" not in text


async def test_wrappers_compose() -> None:
    ground = Ground(NotConnectedError("1"), NotConnectedError("2"))
    inside = Monitored(ground.driver, clock=ground.clock)
    driver = Monitored(
        Debug(Limited(Retrying(Timeout(inside, 30), Retry(attempts=3, delays=(0,))), 4)),
        clock=ground.clock,
    )

    async with driver:
        receipt = await driver.publish(message())

    assert receipt.sequence == 1
    assert inside.monitoring.failures == 2
    assert (driver.monitoring.successes, driver.monitoring.failures) == (1, 0)
