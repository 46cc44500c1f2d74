"""One emit through the pipeline: its receipt, its errors, and what becomes of it when it is cancelled."""

import asyncio
import time

import pytest

from eventbus import EventService
from eventbus.drivers.jetstream import link
from eventbus.embedded import NatsServer
from eventbus.errors import (
    DriverError,
    EmitUnknown,
    IdConflictError,
    NotConnectedError,
    PayloadTooLargeError,
)
from tests.integration.boxes import (
    LONG,
    BoxSent,
    Heard,
    boxes,
    cancel_unanswered,
    ids_after,
    serving,
    until_stored,
)
from tests.integration.rig import Line, stored_ids

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]


async def test_a_receipt_is_that_of_its_own_event(nats_server: NatsServer) -> None:
    heard = Heard()
    async with serving(nats_server.url, heard) as events, asyncio.TaskGroup() as group:
        emits = [group.create_task(events.emit(one)) for one in boxes(50)]

    receipts = [one.result() for one in emits]
    assert [one.sequence for one in receipts] == list(range(1, 51))
    assert await stored_ids(nats_server.url) == [one.id for one in receipts]
    assert [(one.id, one.key) for one in heard.stored] == [
        (one.id, str(number)) for number, one in enumerate(receipts)
    ]


async def test_a_cancelled_emit_is_emitted_again_under_its_id(nats_server: NatsServer) -> None:
    box, heard = BoxSent(number="1"), Heard()
    async with Line(nats_server) as line, serving(line.url, heard) as events:
        await events.emit(BoxSent(number="first"))
        await cancel_unanswered(events.emit(box), line)
        receipt = await until_stored(events, box)
        another = await until_stored(events, box)

    assert await stored_ids(nats_server.url) == [heard.stored[0].id, receipt.id, another.id]
    assert len({one.id for one in heard.stored}) == 3
    assert heard.failed == []


async def test_an_emit_whose_answer_is_lost_with_the_connection_is_stored_once(
    nats_server: NatsServer,
) -> None:
    async with Line(nats_server) as line, serving(line.url) as events:
        await events.emit(BoxSent(number="first"))

        def lost(data: bytes) -> bytes:
            line.back = lambda data: data
            line.cut()
            return b""

        line.back = lost
        async with asyncio.timeout(LONG):
            receipt = await events.emit(BoxSent(number="1"))

    assert not receipt.duplicate
    assert (await stored_ids(nats_server.url))[1:] == [receipt.id]


async def test_nobody_knows_of_one_whose_answer_never_comes(nats_server: NatsServer) -> None:
    box, heard = BoxSent(number="1"), Heard()
    async with (
        Line(nats_server) as line,
        serving(line.url, heard, emit_timeout=0.5, publish_timeout=0.2) as events,
    ):
        await events.emit(BoxSent(number="first"))
        line.silence()
        with pytest.raises(EmitUnknown) as raised:
            await events.emit(box)
        told = [one.id for one in heard.failed]
        line.restore()
        receipt = await until_stored(events, box)

    assert told == [receipt.id] == [raised.value.id]
    assert (await stored_ids(nats_server.url))[1:] == told


async def test_the_options_go_along(nats_server: NatsServer) -> None:
    heard = Heard()
    async with serving(nats_server.url, heard) as events:
        first = await events.emit(BoxSent(number="1"), id="one", key="mine", tags=("vip",))
        again = await events.emit(BoxSent(number="1"), id="one")
        with pytest.raises(IdConflictError):
            await events.emit(BoxSent(number="2"), id="one")
        with pytest.raises(TypeError, match="no option 'keyy'"):
            await events.emit(BoxSent(number="3"), keyy="x")  # type: ignore[call-arg]

    assert (first.duplicate, again.duplicate) == (False, True)
    assert (again.id, again.sequence) == ("one", first.sequence)
    assert (heard.stored[0].key, heard.stored[0].tags) == ("mine", ("vip",))
    assert [one.duplicate for one in heard.stored] == [False, True]
    assert [type(one.error) for one in heard.failed] == [IdConflictError]
    assert await stored_ids(nats_server.url) == ["one"]


async def test_a_fresh_id_can_not_be_taken(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    async with serving(nats_server.url) as events:
        (taken,) = ids_after(await events.emit(BoxSent(number="first")), 1)
        await events.emit(BoxSent(number="2"), id=taken)
        with pytest.raises(IdConflictError):
            await events.emit(BoxSent(number="1"))


async def test_what_can_not_be_carried_is_told_and_raised(nats_server: NatsServer) -> None:
    heard = Heard()
    async with serving(nats_server.url, heard) as events:
        with pytest.raises(PayloadTooLargeError):
            await events.emit(BoxSent(number="1", content="x" * 2_000_000))

    assert [type(one.error) for one in heard.failed] == [PayloadTooLargeError]


async def test_one_that_has_to_wait_for_a_connection_keeps_its_id(nats_server: NatsServer) -> None:
    box, heard = BoxSent(number="1"), Heard()
    async with serving(nats_server.url, heard, emit_timeout=1.0, publish_timeout=0.3) as events:
        await events.emit(BoxSent(number="first"))
        nats_server.pause()
        with pytest.raises(EmitUnknown) as unknown:
            await events.emit(box)
        nats_server.kill()
        async with asyncio.timeout(LONG):
            while not isinstance(await failure(events, box), NotConnectedError):
                pass
        await asyncio.to_thread(nats_server.restart)
        receipt = await until_stored(events, box)

    assert receipt.id == unknown.value.id
    assert (await stored_ids(nats_server.url))[1:] == [receipt.id]


async def failure(events: EventService, box: BoxSent) -> DriverError:
    with pytest.raises(DriverError) as raised:
        await events.emit(box)
    return raised.value


async def test_those_that_find_no_room_wait_for_their_turn(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MAX_WAITING", 4)
    async with (
        serving(nats_server.url) as events,
        asyncio.timeout(LONG),
        asyncio.TaskGroup() as group,
    ):
        emits = [group.create_task(events.emit(one)) for one in boxes(40)]

    receipts = [one.result() for one in emits]
    assert sorted(one.sequence for one in receipts) == list(range(1, 41))
    assert await stored_ids(nats_server.url) == [one.id for one in receipts]


async def test_a_lot_that_finds_no_connection_keeps_its_ids(nats_server: NatsServer) -> None:
    lot = boxes(20)
    async with serving(nats_server.url, emit_timeout=1.0, publish_timeout=0.3) as events:
        nats_server.pause()
        with pytest.raises(ExceptionGroup) as unknown:
            await events.emit_many(lot)
        nats_server.kill()
        async with asyncio.timeout(LONG):
            while await failures(events, lot) != {NotConnectedError}:
                pass
        await asyncio.to_thread(nats_server.restart)
        receipts = [await until_stored(events, one) for one in lot]

    ids = [one.id for one in unknown.value.exceptions if isinstance(one, EmitUnknown)]
    assert [one.id for one in receipts] == ids
    assert await stored_ids(nats_server.url) == ids


async def failures(events: EventService, lot: list[BoxSent]) -> set[type[Exception]]:
    with pytest.raises(ExceptionGroup) as raised:
        await events.emit_many(lot)
    return {type(one) for one in raised.value.exceptions}
