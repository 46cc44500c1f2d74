"""Publishing to the real server: what is stored, what is refused, and what stays unknown."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import pytest

from eventbus.drivers.base import Connected, Disconnected, Receipt
from eventbus.embedded import NatsServer
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    EmitUnknown,
    EventBusError,
    HeaderError,
    NoStreamError,
    NotAuthorizedError,
    NotConnectedError,
    PayloadTooLargeError,
    PublishError,
    SubjectError,
)
from tests.integration.rig import Line, Told, driver_of, event, plain, stored_ids
from tests.waiting import eventually

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]


async def test_a_published_event_is_stored_where_its_receipt_says(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url) as driver:
        receipt = await driver.publish(event(7, body=b'{"a": 1}'))

        stored = await driver.stored(receipt)

    assert receipt == Receipt("id-7", "EVENTS", 1, duplicate=False, driver="jetstream")
    assert stored is not None
    assert (stored.subject, stored.body, stored.id) == (
        "events.user.created",
        b'{"a": 1}',
        "id-7",
    )
    assert stored.headers["ce-type"] == "user.created"


async def test_a_message_that_is_gone_has_no_copy(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url) as driver:
        receipt = await driver.publish(event())
        async with plain(nats_server.url) as client:
            await client.jetstream().delete_msg("EVENTS", receipt.sequence)

        assert await driver.stored(receipt) is None


async def test_an_id_that_is_published_again_is_a_duplicate_of_the_first(
    nats_server: NatsServer,
) -> None:
    async with driver_of(nats_server.url) as driver:
        first = await driver.publish(event(1))
        await driver.publish(event(2))

        again = await driver.publish(event(1))

    assert not first.duplicate
    assert again.duplicate
    assert again.sequence == first.sequence
    assert await stored_ids(nats_server.url) == ["id-1", "id-2"]


async def test_without_an_id_nothing_is_deduplicated(nats_server: NatsServer) -> None:
    message = Message("events.user.created", {"ce-id": "x"}, b"{}")
    async with driver_of(nats_server.url) as driver:
        receipts = [await driver.publish(message) for _ in range(2)]

    assert [one.sequence for one in receipts] == [1, 2]
    assert [one.id for one in receipts] == ["x", "x"]


async def test_many_at_once_are_stored_once_each(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url) as driver:
        receipts = await asyncio.gather(*(driver.publish(event(n)) for n in range(2000)))

    assert sorted(one.sequence for one in receipts) == list(range(1, 2001))
    assert {one.id for one in receipts} == {f"id-{n}" for n in range(2000)}


async def test_a_publish_whose_answer_got_lost_is_repeated_and_stored_once(
    nats_server: NatsServer,
) -> None:
    async with Line(nats_server) as line, driver_of(line.url) as driver:
        lost: list[bytes] = []

        def lose_first(data: bytes) -> bytes:
            if b'"seq":1}' not in data or lost:
                return data
            lost.append(data)
            return b""

        line.back = lose_first

        receipt = await driver.publish(event())

    assert len(lost) == 1
    assert (receipt.sequence, receipt.duplicate) == (1, False)
    assert await stored_ids(nats_server.url) == ["id-1"]


async def test_an_oversize_message_is_refused_and_the_connection_stays(
    nats_server: NatsServer,
) -> None:
    told = Told()
    async with driver_of(nats_server.url, told) as driver:
        limit = 1024 * 1024 - 4096
        with pytest.raises(PayloadTooLargeError) as refused:
            await driver.publish(event(body=b"x" * limit))

        await driver.publish(event(body=b"x" * (limit - 200)))
        assert refused.value.name == "user.created"
        assert refused.value.limit == limit
        assert refused.value.size > limit
        assert len(told.of(Connected)) == 1


async def test_headers_count_towards_the_size_to_the_byte(nats_server: NatsServer) -> None:
    told = Told()
    head = b"NATS/1.0\r\nce-id: 1\r\nNats-Msg-Id: 1\r\n\r\n"
    full = 1024 * 1024 - len(head)
    async with driver_of(nats_server.url, told) as driver:
        with pytest.raises(PayloadTooLargeError):
            await driver.publish(
                Message("events.a.b", {"ce-id": "1"}, b"x" * (full + 1), "1"), headroom=0
            )

        receipt = await driver.publish(
            Message("events.a.b", {"ce-id": "1"}, b"x" * full, "1"), headroom=0
        )

        assert receipt.sequence == 1
        assert len(told.of(Connected)) == 1


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "events.user.*",
        "events.>",
        "events..b",
        "events.a.",
        ".a",
        "events.a b",
        "events.a\r\nPUB x 0\r\n",
        "events.a\x00",
        "events.\u2028",
        "events.\u00e9",
        "events." + "a" * 5000,
    ],
)
async def test_a_subject_that_nats_cant_carry_never_reaches_the_wire(
    nats_server: NatsServer, subject: str
) -> None:
    async with driver_of(nats_server.url) as driver:
        with pytest.raises(SubjectError):
            await driver.publish(Message(subject, {}, b"{}"))

        assert (await driver.publish(event())).sequence == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-a", "1\r\nNats-Rollup: all"),
        ("x-a", "caf\u00e9"),
        ("x-a", "\x7f"),
        ("x a", "1"),
        ("x:a", "1"),
        ("", "1"),
        ("x\r\nNats-Rollup", "all"),
    ],
)
async def test_a_header_that_would_arrive_changed_never_reaches_the_wire(
    nats_server: NatsServer, name: str, value: str
) -> None:
    async with driver_of(nats_server.url) as driver:
        with pytest.raises(HeaderError) as refused:
            await driver.publish(Message("events.a.b", {"ce-id": "1", name: value}, b"{}"))

        assert refused.value.header == name
        assert (await driver.publish(event())).sequence == 1


async def test_a_subject_of_no_stream_is_said_to_have_none(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url, emit_timeout=0.6) as driver:
        with pytest.raises(NoStreamError, match=r"no stream takes 'other\.user\.created'"):
            await driver.publish(Message("other.user.created", {"ce-id": "1"}, b"{}"))


async def test_a_stream_that_appears_in_time_takes_the_event(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url) as driver, plain(nats_server.url) as client:
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(
                driver.publish(Message("other.a", {"ce-id": "1"}, b"{}", "1"))
            )
            # Without a stream the first tries are refused.
            await client.request("$JS.API.INFO", b"")
            await client.jetstream().add_stream(name="OTHER", subjects=["other.>"])

        assert publishing.result() == Receipt("1", "OTHER", 1, driver="jetstream")


async def test_a_full_stream_is_said_at_once(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url, max_bytes=1024 * 1024, emit_timeout=60) as driver:
        await driver.publish(event(1, body=b"x" * 900_000))
        started = time.monotonic()

        with pytest.raises(BackpressureError) as refused:
            await driver.publish(event(2, body=b"x" * 900_000))

    assert refused.value.stream == "EVENTS"
    assert "maximum bytes exceeded" in str(refused.value)
    assert time.monotonic() - started < 30
    assert await stored_ids(nats_server.url) == ["id-1"]


async def test_what_the_stream_refuses_is_raised_with_its_words(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url) as driver, plain(nats_server.url) as client:
        await client.jetstream().add_stream(name="OTHER", subjects=["other.>"], max_msg_size=100)

        with pytest.raises(PublishError, match=r"message size exceeds maximum allowed.*10054"):
            await driver.publish(Message("other.a", {"ce-id": "1"}, b"x" * 1000))


def answering(line: Line, error: bytes) -> list[bytes]:
    """Let the server's first PubAck arrive as another answer; it is in what this returns."""
    replaced: list[bytes] = []

    def replace_first(data: bytes) -> bytes:
        match = re.search(rb"MSG (\S+ \S+) \d+\r\n(\{\"stream\":\"EVENTS\"[^\r]+)\r\n", data)
        if match is None or replaced:
            return data
        replaced.append(match[2])
        answer = b"MSG %b %d\r\n%b\r\n" % (match[1], len(error), error)
        return data.replace(match[0], answer)

    line.back = replace_first
    return replaced


@pytest.mark.parametrize(
    ("code", "err_code", "description"),
    [
        (409, 10158, "duplicate message id is in process"),
        (503, 10008, "JetStream system temporarily unavailable"),
        (500, 10118, "stream is offline"),
    ],
)
async def test_a_refusal_that_passes_is_tried_again_with_the_same_id(
    nats_server: NatsServer, code: int, err_code: int, description: str
) -> None:
    error = {"code": code, "err_code": err_code, "description": description}
    async with Line(nats_server) as line, driver_of(line.url) as driver:
        replaced = answering(line, json.dumps({"error": error, "seq": 0}).encode())

        receipt = await driver.publish(event())

    assert len(replaced) == 1
    assert receipt.sequence == 1
    assert await stored_ids(nats_server.url) == ["id-1"]


@pytest.mark.parametrize("err_code", [10023, 10028, 10047, 10077])
async def test_no_room_of_any_kind_is_backpressure(nats_server: NatsServer, err_code: int) -> None:
    error = {"code": 503, "err_code": err_code, "description": "no room"}
    answer = {"error": error, "stream": "EVENTS", "seq": 0}
    async with Line(nats_server) as line, driver_of(line.url) as driver:
        answering(line, json.dumps(answer).encode())

        with pytest.raises(BackpressureError, match=r"stream EVENTS has no room \(no room\)"):
            await driver.publish(event())


async def test_a_refusal_after_a_try_without_an_answer_is_no_certainty(
    nats_server: NatsServer,
) -> None:
    error = {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}
    answer = json.dumps({"error": error, "stream": "EVENTS", "seq": 0}).encode()
    async with Line(nats_server) as line, driver_of(line.url) as driver:
        line.back = lambda data: b"" if b'"seq":1}' in data else data
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(_error_of(driver.publish(event())))
            await eventually(lambda: _is_stored(nats_server))
            answering(line, answer)

    unknown = publishing.result()
    assert isinstance(unknown, EmitUnknown)
    assert isinstance(unknown.__cause__, BackpressureError)


async def test_an_answer_that_isnt_a_streams_is_no_receipt(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url) as driver, plain(nats_server.url) as client:

        async def answer(message: object) -> None:
            await client.publish(message.reply, b"thanks")  # type: ignore[attr-defined]

        await client.subscribe("other.a", cb=answer)
        await client.flush()

        with pytest.raises(PublishError, match="something that isn't a stream answers"):
            await driver.publish(Message("other.a", {"ce-id": "1"}, b"{}"))


PERMISSIONS = """
authorization { users = [ { user: "mailer", password: "x", permissions: {
  publish: { deny: ["events.user.deleted"] }
} } ] }
"""


async def test_an_event_the_permissions_dont_cover_fails_at_once() -> None:
    with NatsServer(config=PERMISSIONS) as server:
        login = {"nats_user": "mailer", "nats_password": "x"}
        async with driver_of(server.url, emit_timeout=60, publish_timeout=60, **login) as driver:
            started = time.monotonic()
            with pytest.raises(NotAuthorizedError, match=r"'events\.user\.deleted'"):
                await driver.publish(event(1, "user.deleted"))
            took = time.monotonic() - started

            assert (await driver.publish(event(2))).sequence == 1
            assert took < 30


async def test_a_paused_server_leaves_the_outcome_unknown_in_time(nats_server: NatsServer) -> None:
    told = Told()
    async with driver_of(nats_server.url, told, emit_timeout=1.2) as driver:
        nats_server.pause()
        started = time.monotonic()

        with pytest.raises(EmitUnknown) as unknown:
            await driver.publish(event(1))

        took = time.monotonic() - started
        nats_server.resume()
        await driver.publish(event(2))
    assert 1.1 < took < 30
    assert (unknown.value.name, unknown.value.id) == ("user.created", "id-1")
    assert unknown.value.tries >= 2
    assert await stored_ids(nats_server.url) == ["id-1", "id-2"]


async def test_the_unknown_event_published_again_is_stored_once(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url, emit_timeout=0.7) as driver:
        nats_server.pause()
        with pytest.raises(EmitUnknown):
            await driver.publish(event(1))
        nats_server.resume()

        receipt = await driver.publish(event(1))

    assert receipt.sequence == 1
    assert await stored_ids(nats_server.url) == ["id-1"]


async def test_without_a_connection_nothing_is_sent_and_nothing_appears_later(
    nats_server: NatsServer,
) -> None:
    told = Told()
    async with driver_of(nats_server.url, told, emit_timeout=0.5) as driver:
        nats_server.kill()
        await told.until(Disconnected)

        with pytest.raises(NotConnectedError, match="wasn't sent: no connection for "):
            await driver.publish(event("ghost"))

        nats_server.restart()
        await told.until(Connected, 2)
        await driver.publish(event("real"))
    assert await stored_ids(nats_server.url) == ["id-real"]


async def test_a_server_that_comes_back_in_time_takes_what_waited(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url, emit_timeout=8) as driver:
        await driver.publish(event(1))
        nats_server.kill()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(driver.publish(event(n))) for n in range(2, 52)]
            await asyncio.to_thread(nats_server.restart)

        assert {one.result().duplicate for one in waiting} == {False}
    assert sorted(await stored_ids(nats_server.url)) == sorted(f"id-{n}" for n in range(1, 52))


async def test_a_cancelled_publish_leaves_nothing_behind(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url) as driver:
        nats_server.pause()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await driver.publish(event(1))
        nats_server.resume()

        assert (await driver.publish(event(2))).sequence == 2


async def test_outside_its_block_a_driver_refuses_at_once(nats_server: NatsServer) -> None:
    driver = driver_of(nats_server.url, emit_timeout=60)
    started = time.monotonic()

    with pytest.raises(NotConnectedError, match="the driver isn't entered"):
        await driver.publish(event())
    async with driver:
        pass
    with pytest.raises(NotConnectedError, match="the driver is closed"):
        await driver.publish(event())

    assert time.monotonic() - started < 30


async def test_leaving_the_driver_ends_a_publish_that_waits(nats_server: NatsServer) -> None:
    told = Told()
    async with asyncio.TaskGroup() as group:
        async with driver_of(nats_server.url, told, emit_timeout=60) as driver:
            nats_server.kill()
            await told.until(Disconnected)
            waiting = group.create_task(_error_of(driver.publish(event())))
            await asyncio.sleep(0)
        left = time.monotonic()
    assert isinstance(waiting.result(), NotConnectedError)
    assert time.monotonic() - left < 30


async def test_leaving_the_driver_ends_a_publish_that_has_no_answer(
    nats_server: NatsServer,
) -> None:
    async with asyncio.TaskGroup() as group:
        async with driver_of(nats_server.url, emit_timeout=60, publish_timeout=60) as driver:
            nats_server.pause()
            waiting = group.create_task(_error_of(driver.publish(event())))
            await asyncio.sleep(0)
        left = time.monotonic()
    nats_server.resume()
    assert isinstance(waiting.result(), EmitUnknown)
    assert time.monotonic() - left < 30


async def _error_of(call: Awaitable[object]) -> Exception | None:
    try:
        await call
    except EventBusError as exc:
        return exc
    return None


async def test_a_scheduled_event_is_published_at_its_time_and_not_before(
    nats_server: NatsServer,
) -> None:
    due = datetime.now(UTC) + timedelta(seconds=1)  # noqa: TID251 - the server's clock
    async with driver_of(nats_server.url) as driver:
        receipt = await driver.schedule(event(5), at=due, holder="events-sched.mailer.id-5")
        before = await stored_ids(nats_server.url)

        await eventually(lambda: _is_stored(nats_server), 5)

        assert receipt.stream == "EVENTS_LATER"
        assert before == []
        stored = await driver.stored(Receipt("", "EVENTS", 1))
        assert stored is not None
        assert stored.subject == "events.user.created"
        assert stored.headers["ce-id"] == "id-5"


async def _is_stored(server: NatsServer) -> bool:
    return bool(await stored_ids(server.url))
