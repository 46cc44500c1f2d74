"""`Bench`: what the tests of the suite work with, and where the drivers under test meet."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count

import pytest

from eventbus.clock import Clock, SystemClock
from eventbus.delivery import Delivery
from eventbus.drivers.atomic import Atomic, is_atomic
from eventbus.drivers.base import Consumer, ConsumerSpec, Driver
from eventbus.envelope import Message
from eventbus.errors import SettleError
from eventbus.subject import Subjects

__all__ = (
    "LEASE",
    "PATIENCE",
    "Bench",
    "Inbox",
    "OrderedInbox",
    "Place",
    "committing",
    "need",
    "raised",
    "scheduling",
    "storing",
)

PATIENCE = 30.0
LEASE = 1.0
"""The ack wait of the suite's consumers, in seconds."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where drivers under test meet: those it makes see the same events."""

    make: Callable[[str], Driver]
    """Makes a driver for a service, not connected."""
    clock: Clock = field(default_factory=SystemClock)
    """What the drivers wait with."""
    advance: Callable[[float], Awaitable[None]] | None = None
    """Moves that clock by seconds; None where time passes by itself."""
    namespace: str = "events"


class Inbox:
    """Keeps what a consumer delivers."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self.deliveries.append(delivery)

    @property
    def bodies(self) -> list[bytes]:
        """What was delivered, in order."""
        return [one.message.body for one in self.deliveries]


class OrderedInbox(Inbox):
    """Takes the deliveries of an ordered consumer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False

    def take(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self.deliveries.append(delivery)

    def halt(self) -> None:
        """Begin with nothing more."""
        self.is_open = False

    async def hand_back(self) -> None:
        """Give back nothing: nothing is halted here with something in hand."""

    def resume(self) -> None:
        """Go on."""
        self.is_open = True


class Bench:
    """What a test works with: drivers that are entered, messages, and the passing of time."""

    def __init__(self, place: Place, stack: AsyncExitStack) -> None:
        self._place = place
        self._stack = stack
        self._subjects = Subjects(place.namespace)
        self._numbers = count(1)
        self.group = asyncio.TaskGroup()

    async def driver(self, service: str = "app") -> Driver:
        """Return another driver of the place, entered."""
        return await self._stack.enter_async_context(self._place.make(service))

    def message(
        self, body: bytes = b"{}", *, name: str = "user.created", id: str | None = None
    ) -> Message:
        """Return a message that no other one is like."""
        id = id or f"id-{next(self._numbers)}"
        headers = {"ce-id": id, "ce-type": name, "ce-specversion": "1.0", "x-color": "blue"}
        return Message(self._subjects.event(name), headers, body, id)

    def spec(self, listener: str = "one", *events: str) -> ConsumerSpec:
        """Return what a listener needs."""
        return ConsumerSpec(
            durable=f"app__{listener}",
            service="app",
            listener=listener,
            events=events or ("user.created",),
            ack_wait=LEASE,
        )

    async def consume(self, driver: Driver, spec: ConsumerSpec) -> tuple[Inbox, Consumer]:
        """Provision and start a consumer that is stopped at the end."""
        inbox = Inbox()
        await driver.provision([spec])
        consumer = await driver.consume(spec, inbox)
        self._stack.push_async_callback(consumer.stop)
        return inbox, consumer

    async def acking(self, driver: Driver, spec: ConsumerSpec) -> Inbox:
        """Start a consumer whose deliveries are acknowledged at once."""
        inbox = Inbox()

        def deliver(delivery: Delivery) -> None:
            inbox(delivery)
            self.group.create_task(_acked(delivery))

        await driver.provision([spec])
        consumer = await driver.consume(spec, deliver)
        self._stack.push_async_callback(consumer.stop)
        return inbox

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait, and let time pass, until a condition holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self.wait(0.05)

    async def wait(self, seconds: float) -> None:
        """Let time pass: that of the place's clock."""
        if self._place.advance is None:
            await asyncio.sleep(seconds)
        else:
            await self._place.advance(seconds)

    async def settled(self, inbox: Inbox, expected: list[bytes]) -> None:
        """Wait for deliveries, and a while longer for those that must not come."""
        await self.until(lambda: len(inbox.deliveries) >= len(expected))
        await self.wait(0.2)
        assert inbox.bodies == expected

    def later(self, seconds: float) -> timedelta:
        """Return a duration of the place's clock."""
        return timedelta(seconds=seconds)

    @property
    def clock(self) -> Clock:
        """What the drivers wait with."""
        return self._place.clock

    def holder(self, id: str) -> str:
        """Return where a delayed event waits."""
        return self._subjects.schedule("app", id)

    def mark(self, id: str) -> str:
        """Return where a listener's mark of an event is."""
        return self._subjects.inbox("app", "one", id)


def need(has: bool, feature: str) -> None:
    """Skip the test of a driver that lacks what it is about."""
    if not has:
        pytest.skip(f"the driver has no {feature}")


async def storing(bench: Bench) -> Driver:
    """Return a driver, or skip the test where it stores nothing."""
    driver = await bench.driver()
    need(driver.features.stores, "memory of its events")
    return driver


async def scheduling(bench: Bench) -> Driver:
    """Return a driver, or skip the test where nothing waits in it."""
    driver = await bench.driver()
    need(driver.features.schedules, "schedules")
    return driver


async def committing(bench: Bench) -> Atomic:
    """Return a driver, or skip the test where it has no batches."""
    driver = await bench.driver()
    need(driver.features.atomic, "atomic batches")
    assert is_atomic(driver), "a driver with Features.atomic has its methods"
    return driver


async def raised(publishing: Awaitable[object]) -> Exception | None:
    """Return what a publish raises; None where it returns."""
    try:
        await publishing
    except Exception as exc:  # noqa: BLE001 - it is what the test looks at
        return exc
    return None


async def _acked(delivery: Delivery) -> None:
    with suppress(SettleError):
        await delivery.ack()
