"""Many events at once: each has its own receipt or error, whatever happens on the way."""

import asyncio
import time
from collections.abc import Iterator
from itertools import count

import pytest

from eventbus import Event, EventService, Settings
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from eventbus.embedded import NatsServer
from eventbus.errors import (
    BackpressureError,
    DriverError,
    EmitUnknown,
    IdConflictError,
    InvalidEventError,
    PayloadTooLargeError,
)
from tests.integration.boxes import (
    LONG,
    WAYS,
    BoxSent,
    Emits,
    Heard,
    boxes,
    cancel_unanswered,
    ids_after,
    serving,
    until_stored,
)
from tests.integration.rig import Line, stored_ids

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]


class BoxQueued(Event, name="box.queued", driver="side"):
    number: str


async def test_each_event_has_its_receipt_and_the_stream_has_their_order(
    nats_server: NatsServer,
) -> None:
    heard = Heard()
    async with serving(nats_server.url, heard) as events:
        receipts = await events.emit_many(boxes(1200))

    ids = [one.id for one in receipts]
    assert [one.sequence for one in receipts] == list(range(1, 1201))
    assert {(one.stream, one.duplicate, one.driver) for one in receipts} == {
        ("EVENTS", False, "jetstream")
    }
    assert await stored_ids(nats_server.url) == ids
    assert [(one.id, one.key) for one in heard.stored] == [
        (id, str(number)) for number, id in enumerate(ids)
    ]


async def test_what_can_not_be_carried_fails_alone(nats_server: NatsServer) -> None:
    big, odd = BoxSent(number="big", content="x" * 2_000_000), BoxSent(number="\ud800")
    heard = Heard()
    async with serving(nats_server.url, heard) as events:
        with pytest.raises(ExceptionGroup) as raised:
            await events.emit_many([*boxes(30), big, odd, *boxes(30)])

    assert [type(one) for one in raised.value.exceptions] == [
        PayloadTooLargeError,
        InvalidEventError,
    ]
    assert len(await stored_ids(nats_server.url)) == len(heard.stored) == 60
    assert [one.name for one in heard.failed] == ["box.sent"]


async def test_one_object_twice_in_the_list_is_two_events(nats_server: NatsServer) -> None:
    one = BoxSent(number="1")
    async with serving(nats_server.url) as events:
        receipts = await events.emit_many([one] * 40)

    assert len({receipt.id for receipt in receipts}) == 40
    assert len(await stored_ids(nats_server.url)) == 40


async def test_a_fresh_id_that_is_taken_fails_alone(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    async with serving(nats_server.url) as events:
        coming = ids_after(await events.emit(BoxSent(number="first")), 52)
        for taken in (coming[11], coming[31]):
            await events.emit(BoxSent(number="other"), id=taken)
        with pytest.raises(ExceptionGroup) as raised:
            await events.emit_many(boxes(52))

    assert [type(one) for one in raised.value.exceptions] == [IdConflictError] * 2
    assert sorted(await stored_ids(nats_server.url))[1:] == coming


async def test_a_full_stream_refuses_what_it_has_no_room_for(nats_server: NatsServer) -> None:
    heard = Heard()
    async with serving(nats_server.url, heard, max_bytes=1024 * 1024) as events:

        async def never(event: BoxSent) -> None:
            await asyncio.Event().wait()

        await events.subscribe(BoxSent, never)
        with pytest.raises(ExceptionGroup) as raised:
            await events.emit_many(boxes(300, "x" * 8000))
        with pytest.raises(BackpressureError) as alone:
            await events.emit(BoxSent(number="late", content="x" * 8000))

    stored = await stored_ids(nats_server.url)
    errors = raised.value.exceptions
    assert {type(one) for one in errors} == {BackpressureError}
    assert str(errors[0]) == str(alone.value)
    assert len(stored) == len(heard.stored) == 300 - len(errors)
    assert len(heard.failed) == len(errors) + 1


async def test_a_connection_that_breaks_on_the_way_loses_nothing_and_stores_nothing_twice(
    nats_server: NatsServer,
) -> None:
    heard = Heard()
    async with Line(nats_server) as line, serving(line.url, heard) as events:
        heard.act = 700, line.cut
        async with asyncio.timeout(LONG):
            receipts = await events.emit_many(boxes(3000))

    stored = await stored_ids(nats_server.url)
    assert sorted(stored) == sorted(one.id for one in receipts)
    assert len(stored) == len(set(stored)) == len(heard.stored) == 3000
    assert not any(one.duplicate for one in receipts)


async def test_a_server_that_is_killed_on_the_way_has_each_event_once(
    nats_server: NatsServer,
) -> None:
    heard = Heard()
    async with serving(nats_server.url, heard) as events:
        killed = asyncio.Event()

        def kill() -> None:
            nats_server.kill()
            killed.set()

        heard.act = 700, kill
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
            emits = group.create_task(events.emit_many(boxes(3000)))
            await killed.wait()
            await asyncio.to_thread(nats_server.restart)
        receipts = emits.result()

    stored = await stored_ids(nats_server.url)
    assert sorted(stored) == sorted(one.id for one in receipts)
    assert len(stored) == len(set(stored)) == 3000


async def test_nobody_knows_of_those_whose_answers_never_come(nats_server: NatsServer) -> None:
    lot = boxes(40)
    async with (
        Line(nats_server) as line,
        serving(line.url, emit_timeout=0.5, publish_timeout=0.2) as events,
    ):
        await events.emit(BoxSent(number="first"))
        line.silence()
        with pytest.raises(ExceptionGroup) as raised:
            await events.emit_many(lot)
        line.restore()
        again = [await until_stored(events, one) for one in lot]

    assert {type(one) for one in raised.value.exceptions} == {EmitUnknown}
    unknown = [one.id for one in raised.value.exceptions if isinstance(one, EmitUnknown)]
    stored = await stored_ids(nats_server.url)
    assert [one.id for one in again] == unknown
    assert sorted(stored[1:]) == sorted(unknown)


async def test_a_cancelled_lot_is_emitted_again_under_its_ids(nats_server: NatsServer) -> None:
    lot = boxes(40)
    async with Line(nats_server) as line, serving(line.url) as events:
        await events.emit(BoxSent(number="first"))
        await cancel_unanswered(events.emit_many(lot), line)
        receipts = [await until_stored(events, one) for one in lot]

    stored = await stored_ids(nats_server.url)
    assert sorted(stored[1:]) == sorted(one.id for one in receipts)
    assert len(set(stored)) == 41


async def test_events_of_another_driver_go_as_they_would_alone(nats_server: NatsServer) -> None:
    lot = [*boxes(30), *(BoxQueued(number=str(one)) for one in range(30))]
    settings = Settings(nats_url=nats_server.url)
    events = EventService(
        "shop", settings=settings, drivers={"side": MemoryDriver(MemoryBroker())}
    )
    async with events:
        receipts = await events.emit_many(lot)

    assert [one.driver for one in receipts] == ["jetstream"] * 30 + ["memory"] * 30
    assert await stored_ids(nats_server.url) == [one.id for one in receipts[:30]]


@WAYS
async def test_a_generator_is_asked_for_events_as_those_before_go(
    nats_server: NatsServer, middleware: Emits
) -> None:
    heard, made = Heard(), count()
    made_at_first: list[int] = []
    heard.act = 1, lambda: made_at_first.append(next(made))
    async with serving(nats_server.url, heard, middleware) as events:
        receipts = await events.emit_many(BoxSent(number=str(next(made))) for _ in range(2000))

    assert len(receipts) == 2000
    assert made_at_first < [1000]


async def test_what_the_events_themselves_raise_ends_the_call_once_those_before_are_stored(
    nats_server: NatsServer,
) -> None:
    def some() -> Iterator[BoxSent]:
        yield from boxes(100)
        raise LookupError("no more of them")

    heard = Heard()
    async with serving(nats_server.url, heard) as events:
        with pytest.raises(LookupError):
            await events.emit_many(some())
        again = await events.emit_many(boxes(1))

    assert len(await stored_ids(nats_server.url)) == len(heard.stored) == 101
    assert again[0].sequence == 101


async def test_without_a_connection_each_fails_and_none_is_stored(nats_server: NatsServer) -> None:
    heard, lot = Heard(), boxes(700)
    async with serving(nats_server.url, heard, emit_timeout=0.5) as events:
        nats_server.kill()
        with pytest.raises(ExceptionGroup) as raised:
            await events.emit_many(lot)
        failed = len(heard.failed)
        await asyncio.to_thread(nats_server.restart)
        again = [await until_stored(events, one) for one in lot[:20]]

    assert len(raised.value.exceptions) == failed == 700
    assert all(isinstance(one, DriverError) for one in raised.value.exceptions)
    assert await stored_ids(nats_server.url) == [one.id for one in again]


@WAYS
async def test_a_call_that_was_cancelled_half_way_is_emitted_again_and_stores_nothing_twice(
    nats_server: NatsServer, middleware: Emits
) -> None:
    lot, heard = boxes(2000), Heard()
    async with serving(nats_server.url, heard, middleware) as events:
        some = asyncio.Event()
        heard.act = 700, some.set
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
            emits = group.create_task(events.emit_many(lot))
            await some.wait()
            emits.cancel()
        receipts = await events.emit_many(lot)

    stored = await stored_ids(nats_server.url)
    assert len(set(stored)) == 2000
    assert sorted(one.id for one in receipts) == sorted(stored)


async def test_a_call_of_which_one_failed_is_emitted_again_and_stores_the_others_once(
    nats_server: NatsServer,
) -> None:
    lot, big = boxes(40), BoxSent(number="big", content="x" * 2_000_000)
    async with serving(nats_server.url) as events:
        for _ in range(2):
            with pytest.raises(ExceptionGroup):
                await events.emit_many([*lot, big])
        await events.emit_many(lot)
        after = await events.emit_many(lot)

    stored = await stored_ids(nats_server.url)
    assert len(stored) == len(set(stored)) == 80
    assert not any(one.duplicate for one in after)


async def test_one_object_twice_in_a_call_that_failed_is_two_events_again(
    nats_server: NatsServer,
) -> None:
    lot, big = [BoxSent(number="1")] * 40, BoxSent(number="big", content="x" * 2_000_000)
    async with serving(nats_server.url) as events:
        with pytest.raises(ExceptionGroup):
            await events.emit_many([*lot, big])
        receipts = await events.emit_many(lot)

    assert sorted(one.id for one in receipts) == sorted(await stored_ids(nats_server.url))
    assert len({one.id for one in receipts}) == 40


@pytest.mark.parametrize("many", [5, 30])
@WAYS
async def test_those_before_what_the_events_raise_are_stored_whichever_way_they_go(
    nats_server: NatsServer, many: int, middleware: Emits
) -> None:
    def some() -> Iterator[BoxSent]:
        yield from boxes(many)
        raise LookupError("no more of them")

    async with serving(nats_server.url, middleware=middleware) as events:
        with pytest.raises(LookupError):
            await events.emit_many(some())

    assert len(await stored_ids(nats_server.url)) == many


@pytest.mark.parametrize("many", [5, 30])
async def test_a_failure_is_told_with_what_they_raise(nats_server: NatsServer, many: int) -> None:
    def some() -> Iterator[BoxSent]:
        yield from [BoxSent(number="big", content="x" * 2_000_000), *boxes(many)]
        raise LookupError("no more of them")

    async with serving(nats_server.url) as events:
        with pytest.raises(ExceptionGroup) as raised:
            await events.emit_many(some())

    assert [type(one) for one in raised.value.exceptions] == [PayloadTooLargeError, LookupError]
    assert len(await stored_ids(nats_server.url)) == many


@pytest.mark.parametrize("many", [5, 30])
async def test_what_is_no_event_fails_alone(nats_server: NatsServer, many: int) -> None:
    lot: list[object] = [*boxes(many), {"number": "1"}, BoxSent, *boxes(many)]
    async with serving(nats_server.url) as events:
        with pytest.raises(ExceptionGroup) as raised:
            await events.emit_many(lot)  # type: ignore[arg-type]

    assert [type(one) for one in raised.value.exceptions] == [TypeError] * 2
    assert len(await stored_ids(nats_server.url)) == 2 * many
