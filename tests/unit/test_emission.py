"""One emit: what goes to the driver, what is told, and what is kept of one nobody answered."""

import asyncio
import gc
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from eventbus.correlation import Handled, Scope, entered
from eventbus.drivers.base import HEADROOM, Receipt
from eventbus.emission import Emitter, Publishing
from eventbus.envelope import Envelope, Message
from eventbus.errors import (
    BackpressureError,
    EmitUnknown,
    HeaderError,
    IdConflictError,
    InvalidEventError,
    NotConnectedError,
)
from eventbus.event import Event
from eventbus.middleware.base import CallEmit, EmitMiddleware
from eventbus.subject import Subjects
from eventbus.telemetry.signals import EmitFailed, Emitted, Happened
from tests.unit.conftest import RecordingDriver, StillClock


class UserCreated(Event, name="user.created", key="user_id"):
    user_id: str


class Ping(Event, name="ping.sent"):
    pass


@pytest.fixture
def told() -> list[Happened]:
    """Give what the observer was told."""
    return []


def emitter(
    driver: RecordingDriver, told: list[Happened] | None = None, *middleware: EmitMiddleware
) -> Emitter:
    told = [] if told is None else told
    publishing = Publishing(
        driver=driver,
        subjects=Subjects("shop"),
        source="user",
        clock=StillClock(),
        observe=told.append,
        middleware=middleware,
    )
    return Emitter(publishing)


def unknown() -> EmitUnknown:
    return EmitUnknown(name="user.created", id="?", after=15, tries=7)


def event() -> UserCreated:
    return UserCreated(user_id="u-1")


async def test_an_event_goes_to_its_subject_with_room_for_a_dead_letter(
    driver: RecordingDriver,
) -> None:
    receipt = await emitter(driver).emit(event(), {})

    (message,) = driver.published
    assert message.subject == "shop.user.created"
    assert message.headers["ce-source"] == "user"
    assert message.id == message.headers["ce-id"] == receipt.id
    assert driver.headrooms == [HEADROOM]


async def test_the_options_reach_the_message(driver: RecordingDriver) -> None:
    options: Any = {
        "id": "mine",
        "key": "k 1",
        "correlation_id": "c-1",
        "headers": {"X-Tenant": "a b"},
    }

    await emitter(driver).emit(event(), options)

    (message,) = driver.published
    assert message.id == "mine"
    assert message.headers["ce-partitionkey"] == "k%201"
    assert message.headers["ce-correlationid"] == "c-1"
    assert message.headers["x-tenant"] == "a%20b"


async def test_a_stored_event_is_told_once(driver: RecordingDriver, told: list[Happened]) -> None:
    receipt = await emitter(driver, told).emit(event(), {})

    assert told == [
        Emitted(
            name="user.created",
            id=receipt.id,
            driver="recording",
            correlation_id=receipt.id,
            duration=0.0,
            size=len(b'{"user_id":"u-1"}'),
            duplicate=False,
            key="u-1",
        )
    ]


async def test_what_is_told_of_an_emit_names_the_trace_it_was_sent_with(
    driver: RecordingDriver, told: list[Happened]
) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    async def traced(envelope: Envelope, call_next: CallEmit) -> Receipt:
        return await call_next(replace(envelope, trace={"traceparent": traceparent}))

    receipt = await emitter(driver, told, traced).emit(event(), {})

    (one,) = told
    assert isinstance(one, Emitted)
    assert one.trace == receipt.trace == traceparent
    assert driver.published[0].headers["traceparent"] == traceparent


async def test_an_emit_that_fails_is_told_and_raised(
    driver: RecordingDriver, told: list[Happened]
) -> None:
    error = BackpressureError(stream="SHOP", problem="full")
    driver.raises = [error]

    with pytest.raises(BackpressureError):
        await emitter(driver, told).emit(event(), {"id": "mine"})

    assert told == [
        EmitFailed(
            name="user.created",
            id="mine",
            driver="recording",
            correlation_id="mine",
            duration=0.0,
            error=error,
        )
    ]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"headers": {"ce-id": "x"}}, HeaderError),
        ({"headers": {"x-a": "a", "X-A": "b"}}, HeaderError),
        ({"id": ""}, InvalidEventError),
        ({"id": "a b"}, InvalidEventError),
        ({"correlation_id": "a\r\nb"}, InvalidEventError),
        ({"key": "\ud800"}, InvalidEventError),
        ({"key": 7}, InvalidEventError),
        ({"id": UUID(int=7)}, InvalidEventError),
        ({"correlation_id": 7}, InvalidEventError),
    ],
    ids=str,
)
async def test_what_can_not_be_carried_is_refused_before_the_driver(
    driver: RecordingDriver, options: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await emitter(driver).emit(event(), options)

    assert driver.published == []


async def test_emit_middleware_is_around_the_driver(driver: RecordingDriver) -> None:
    async def tag(envelope: Envelope, call_next: CallEmit) -> Receipt:
        return await call_next(replace(envelope, tags=("tagged",)))

    await emitter(driver, None, tag).emit(event(), {})

    assert driver.published[0].headers["ce-tags"] == "tagged"


# What nobody answered (P2) --------------------------------------------------------------------


async def test_the_same_object_is_emitted_again_under_the_same_id(driver: RecordingDriver) -> None:
    driver.raises = [unknown()]
    one, emits = event(), emitter(driver, told := [])

    with pytest.raises(EmitUnknown):
        await emits.emit(one, {})
    receipt = await emits.emit(one, {})

    assert [happened.id for happened in told] == [receipt.id, receipt.id]  # type: ignore[union-attr]


async def test_once_it_is_stored_the_same_object_is_another_event(driver: RecordingDriver) -> None:
    driver.raises = [unknown()]
    one, emits = event(), emitter(driver)

    with pytest.raises(EmitUnknown):
        await emits.emit(one, {})
    await emits.emit(one, {})
    await emits.emit(one, {})

    assert driver.published[0].id != driver.published[1].id


async def test_an_equal_object_is_another_event(driver: RecordingDriver) -> None:
    driver.raises = [unknown()]
    one, emits = event(), emitter(driver, told := [])

    with pytest.raises(EmitUnknown):
        await emits.emit(one, {})
    await emits.emit(event(), {})

    assert told[0].id != told[1].id  # type: ignore[union-attr]


async def test_a_refusal_in_between_does_not_forget_the_id(driver: RecordingDriver) -> None:
    # The first emit may be stored; the third must not store it a second time.
    driver.raises = [unknown(), NotConnectedError("away")]
    one, emits = event(), emitter(driver, told := [])

    with pytest.raises(EmitUnknown):
        await emits.emit(one, {})
    with pytest.raises(NotConnectedError):
        await emits.emit(one, {})
    with pytest.raises(HeaderError):
        await emits.emit(one, {"headers": {"ce-id": "x"}})
    receipt = await emits.emit(one, {})

    assert told[0].id == receipt.id  # type: ignore[union-attr]


async def test_a_cancelled_emit_is_repeated_under_its_id(driver: RecordingDriver) -> None:
    reached = asyncio.Event()
    seen: list[str] = []

    async def hang_once(envelope: Envelope, call_next: CallEmit) -> Receipt:
        seen.append(envelope.id)
        if len(seen) == 1:
            reached.set()
            await asyncio.Event().wait()
        return await call_next(envelope)

    one, emits = event(), emitter(driver, None, hang_once)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(emits.emit(one, {}))
        await reached.wait()
        task.cancel()

    await emits.emit(one, {})

    assert len(seen) == 2
    assert seen[0] == seen[1]


async def test_an_id_of_the_callers_wins_over_the_remembered_one(driver: RecordingDriver) -> None:
    driver.raises = [unknown()]
    one, emits = event(), emitter(driver)

    with pytest.raises(EmitUnknown):
        await emits.emit(one, {})

    assert (await emits.emit(one, {"id": "mine"})).id == "mine"


async def test_nothing_is_kept_of_an_event_that_is_gone(driver: RecordingDriver) -> None:
    driver.raises = [unknown()]
    one, emits = event(), emitter(driver, told := [])
    with pytest.raises(EmitUnknown):
        await emits.emit(one, {})
    assert len(emits._unresolved) == 1

    told.clear()  # the error that was told holds the frames that it passed
    del one
    gc.collect()

    assert len(emits._unresolved) == 0


async def test_a_shared_object_is_not_taken_for_the_emit_of_another_event(
    driver: RecordingDriver,
) -> None:
    # A listener that emits one constant: what stayed unknown while it handled the first event
    # says nothing about the second, whose emit would be dropped as a duplicate.
    constant, emits = Ping(), emitter(driver, told := [])
    driver.raises = [unknown()]

    first = Scope("c-1", "id-1", handled=Handled("id-1", "mail__send"))
    with entered(first), pytest.raises(EmitUnknown):
        await emits.emit(constant, {})
    with entered(Scope("c-2", "id-2", handled=Handled("id-2", "mail__send"))):
        await emits.emit(constant, {})

    assert told[0].id != told[1].id  # type: ignore[union-attr]


async def test_a_shared_object_that_is_stored_elsewhere_is_still_unresolved_here(
    driver: RecordingDriver,
) -> None:
    constant, emits = Ping(), emitter(driver, told := [])
    driver.raises = [unknown()]
    here, elsewhere = (Scope("c", one, handled=Handled(one, "mail__send")) for one in "12")

    with entered(here), pytest.raises(EmitUnknown):
        await emits.emit(constant, {})
    with entered(elsewhere):
        await emits.emit(constant, {})
    with entered(here):
        await emits.emit(constant, {})

    ids = [happened.id for happened in told]  # type: ignore[union-attr]
    assert ids[0] == ids[2] != ids[1]


async def test_a_listener_that_runs_again_repeats_its_ids_though_one_stayed_unknown(
    driver: RecordingDriver,
) -> None:
    constant, emits = Ping(), emitter(driver, told := [])
    driver.raises = [unknown()]

    first, again = (Scope("c", "id-1", handled=Handled("id-1", "mail__send")) for _ in "12")
    with entered(first), pytest.raises(EmitUnknown):
        await emits.emit(constant, {})
    with entered(again):
        await emits.emit(constant, {})
        await emits.emit(constant, {})

    ids = [happened.id for happened in told]  # type: ignore[union-attr]
    assert ids[0] == ids[1]
    assert ids[2] != ids[1]


async def test_in_one_run_a_listener_repeats_what_stayed_unknown(driver: RecordingDriver) -> None:
    one, emits = event(), emitter(driver, told := [])
    driver.raises = [unknown()]

    with entered(Scope("c", "id-1", handled=Handled("id-1", "mail__send"))):
        with pytest.raises(EmitUnknown):
            await emits.emit(one, {})
        await emits.emit(one, {})

    assert told[0].id == told[1].id  # type: ignore[union-attr]


# Duplicates -----------------------------------------------------------------------------------


def duplicate() -> Receipt:
    return Receipt("?", "EVENTS", 7, duplicate=True)


def stored(body: bytes = b'{"user_id":"u-1"}', name: str = "user.created") -> Message:
    return Message("shop.user.created", {"Ce-Type": name}, body)


async def test_a_repeat_under_the_callers_id_is_a_duplicate_and_no_error(
    driver: RecordingDriver, told: list[Happened]
) -> None:
    driver.receipts, driver.kept = [duplicate()], stored()

    receipt = await emitter(driver, told).emit(event(), {"id": "mine"})

    assert receipt.duplicate
    assert [happened.duplicate for happened in told] == [True]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "kept", [stored(b'{"user_id":"u-2"}'), stored(name="user.deleted"), stored(b"")]
)
async def test_another_event_under_the_callers_id_is_a_conflict(
    driver: RecordingDriver, kept: Message, told: list[Happened]
) -> None:
    driver.receipts, driver.kept = [duplicate()], kept

    with pytest.raises(IdConflictError) as raised:
        await emitter(driver, told).emit(event(), {"id": "mine"})

    assert "EVENTS:7" in str(raised.value)
    assert [type(happened) for happened in told] == [EmitFailed]


async def test_a_duplicate_that_is_gone_is_believed(driver: RecordingDriver) -> None:
    driver.receipts, driver.kept = [duplicate()], None

    assert (await emitter(driver).emit(event(), {"id": "mine"})).duplicate


async def test_a_repeat_of_what_a_listener_emits_is_a_duplicate(driver: RecordingDriver) -> None:
    driver.receipts, driver.kept = [duplicate()], stored()

    with entered(Scope("c", "id-1", handled=Handled("id-1", "mail__send"))):
        receipt = await emitter(driver).emit(event(), {})

    assert receipt.duplicate


async def test_a_repeat_of_what_stayed_unknown_is_a_duplicate(driver: RecordingDriver) -> None:
    driver.raises, driver.receipts, driver.kept = [unknown()], [duplicate()], stored()
    one, emits = event(), emitter(driver)

    with pytest.raises(EmitUnknown):
        await emits.emit(one, {})

    assert (await emits.emit(one, {})).duplicate


@pytest.mark.parametrize("kept", [stored(), None], ids=["equal", "gone"])
async def test_a_fresh_id_can_not_be_taken(driver: RecordingDriver, kept: Message | None) -> None:
    driver.receipts, driver.kept = [duplicate()], kept

    with pytest.raises(IdConflictError):
        await emitter(driver).emit(event(), {})
