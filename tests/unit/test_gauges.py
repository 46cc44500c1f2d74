"""What a process measures of its listeners' durables, and when it leaves that alone."""

import asyncio

import pytest

from eventbus.declaration import subscription
from eventbus.drivers.room import DurableState
from eventbus.errors import DriverError, NotAuthorizedError
from eventbus.event import Event
from eventbus.subscription import Subscription
from eventbus.telemetry.conditions import DurableMeasured
from eventbus.worker.gauges import Gauges
from tests.unit.conftest import RecordingDriver, StillClock


class UserCreated(Event, name="user.created"):
    user_id: str


async def listen(event: UserCreated) -> None: ...


def listener(name: str) -> Subscription:
    return subscription("mail", UserCreated, listen, {"name": name})


class Measured(RecordingDriver):
    """A driver that says or raises of each durable what a test tells it to."""

    def __init__(self, **says: DurableState | Exception | None) -> None:
        super().__init__()
        self.says = says
        self.asked: list[str] = []

    async def measure(self, durable: str) -> DurableState | None:  # type: ignore[override]
        """Answer."""
        self.asked.append(durable)
        said = self.says[durable]
        if isinstance(said, Exception):
            raise said
        return said


class Rounds(StillClock):
    """A clock that ends a loop after some sleeps."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.left = count

    async def sleep(self, seconds: float) -> None:
        """Move on, or end it."""
        self.left -= 1
        if not self.left:
            raise asyncio.CancelledError
        await super().sleep(seconds)


STATE = DurableState("mail__send", (), 40, 40, pending=0, unsettled=0)


async def test_each_listener_is_measured_every_few_seconds() -> None:
    told: list[object] = []
    driver = Measured(mail__send=STATE, mail__note=None)

    gauges = Gauges(driver, lambda: [listener("send"), listener("note")], told.append, Rounds(2))
    with pytest.raises(asyncio.CancelledError):
        await gauges.run()

    assert driver.asked == ["mail__send", "mail__note"] * 2
    assert told == [DurableMeasured("mail", "send", STATE, None)] * 2


async def test_one_that_may_not_be_asked_for_is_asked_for_once() -> None:
    told: list[object] = []
    driver = Measured(mail__send=NotAuthorizedError("no"), mail__note=DriverError("not now"))

    gauges = Gauges(driver, lambda: [listener("send"), listener("note")], told.append, Rounds(3))
    with pytest.raises(asyncio.CancelledError):
        await gauges.run()

    assert driver.asked == ["mail__send", *["mail__note"] * 3]
    assert told == []
