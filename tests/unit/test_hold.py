"""What a listener emits while there is no room: it waits, since its listener's work makes room."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from eventbus.correlation import Handled, Scope, entered
from eventbus.drivers.base import Features
from eventbus.emission import Emitter, Publishing
from eventbus.errors import BackpressureError, EmitUnknown
from eventbus.event import Event
from eventbus.subject import Subjects
from tests.unit.conftest import RecordingDriver, StillClock

if TYPE_CHECKING:
    from eventbus.telemetry.signals import Happened

INSIDE = Scope(handled=Handled("id-0", "mail__send"))


class UserCreated(Event, name="user.created"):
    user_id: str


def emitter(driver: RecordingDriver) -> Emitter:
    told: list[Happened] = []
    return Emitter(
        Publishing(
            driver=driver,
            subjects=Subjects(),
            source="user",
            clock=StillClock(),
            observe=told.append,
            middleware=(),
        )
    )


def full() -> BackpressureError:
    return BackpressureError(stream="EVENTS", problem="maximum bytes exceeded")


async def test_an_emit_of_a_listener_waits_where_there_is_no_room(driver: RecordingDriver) -> None:
    driver.raises = [full()]

    with entered(INSIDE):
        receipt = await emitter(driver).emit(UserCreated(user_id="u-1"), {})

    assert driver.journal == ["publish failed", "hold events.user.created"]
    assert receipt.stream == "EVENTS_LATER"
    (held,) = driver.published
    assert held.id == held.headers["ce-id"] == receipt.id


async def test_a_listener_that_runs_again_emits_under_the_same_id(driver: RecordingDriver) -> None:
    ids: list[str] = []

    for raises in ([full()], []):
        driver.raises = [*raises]
        with entered(Scope(handled=Handled("id-0", "mail__send"))):
            ids.append((await emitter(driver).emit(UserCreated(user_id="u-1"), {})).id)

    assert len(set(ids)) == 1


async def test_an_emit_of_anybody_else_is_refused_at_once(driver: RecordingDriver) -> None:
    driver.raises = [full()]

    with pytest.raises(BackpressureError):
        await emitter(driver).emit(UserCreated(user_id="u-1"), {})

    assert driver.journal == ["publish failed"]


async def test_so_is_one_where_nothing_can_wait(driver: RecordingDriver) -> None:
    driver.raises = [full()]
    driver.features = replace(driver.features, delay=False)
    assert driver.features == Features(durable=True, schedules=True)

    with pytest.raises(BackpressureError), entered(INSIDE):
        await emitter(driver).emit(UserCreated(user_id="u-1"), {})

    assert driver.journal == ["publish failed"]


async def test_nothing_waits_twice_where_nobody_knows_whether_it_is_stored(
    driver: RecordingDriver,
) -> None:
    driver.raises = [EmitUnknown(name="user.created", id="?", after=15, tries=7)]

    with pytest.raises(EmitUnknown), entered(INSIDE):
        await emitter(driver).emit(UserCreated(user_id="u-1"), {})

    assert driver.journal == ["publish failed"]
