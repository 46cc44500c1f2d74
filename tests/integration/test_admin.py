"""The operator's view against the real server: streams, durables, stored messages."""

import functools
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime, timedelta

import nats
import pytest
from nats.aio.client import Client

from eventbus.drivers.base import ConsumerSpec
from eventbus.drivers.jetstream import admin as views
from eventbus.drivers.jetstream.admin import Admin, ConsumerView, Reply, Stored, replies
from eventbus.drivers.jetstream.wire import Login, Wire, dial
from eventbus.embedded import NatsServer
from eventbus.envelope import Message
from eventbus.errors import DriverError, TopologyError
from tests.integration.desk import Desk, listener

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url, allow_reconnect=False)
    yield connected
    await connected.close()


@pytest.fixture
async def desk(client: Client) -> Desk:
    desk = Desk(client)
    await desk.start()
    return desk


@pytest.fixture
async def wire(nats_server: NatsServer) -> AsyncIterator[Wire]:
    login = Login(name="admin", inbox_prefix="_INBOX_admin", patience=5)
    made = await dial(
        nats_server.url, login, on_denied=lambda *_: None, on_lost=lambda problem: None
    )
    yield made
    await made.close()


@pytest.fixture
def admin(desk: Desk, wire: Wire) -> Admin:
    return Admin(desk.api, desk.settings, functools.partial(replies, wire))


async def read(stored: AsyncIterator[Stored]) -> list[tuple[int, str]]:
    """Return sequence and subject of each."""
    return [(one.sequence, one.message.subject) async for one in stored]


async def test_streams_tell_how_full_they_are(desk: Desk, admin: Admin) -> None:
    await desk.publish("user.created", "user.updated")
    await desk.topology.ensure_consumers([listener()])

    found = {view.name: view for view in await admin.streams()}

    assert len(found) == 5
    events = found["EVENTS"]
    counted = (events.messages, events.first_sequence, events.last_sequence, events.durables)
    assert counted == (2, 1, 2, 1)
    assert events.max_bytes == 512 * 1024 * 1024
    assert events.fill == events.bytes / events.max_bytes
    assert (found["EVENTS_LATER"].max_bytes, found["EVENTS_LATER"].fill) == (None, None)


async def test_durables_tell_how_far_they_are(desk: Desk, admin: Admin) -> None:
    await desk.topology.ensure_consumers([listener("welcome", "user.*")])
    await desk.publish("user.one", "user.two", "user.three")
    await desk.take("mailer__welcome", 2, ack=False)

    [view] = await admin.consumers()

    assert view == ConsumerView(
        durable="mailer__welcome",
        service="mailer",
        listener="welcome",
        filters=("events-retry.mailer.welcome.>", "events.user.*"),
        pending=1,
        ack_pending=2,
        redelivered=0,
        waiting=0,
        paused=False,
    )


async def test_a_paused_durable_says_so(desk: Desk, admin: Admin) -> None:
    await desk.topology.ensure_consumers([listener()])
    later = datetime.now(UTC) + timedelta(hours=1)  # noqa: TID251 - the server's clock
    until = later.isoformat().replace("+00:00", "Z")
    await desk.api.call("CONSUMER.PAUSE.EVENTS.mailer__welcome", {"pause_until": until})

    [view] = await admin.consumers()

    assert view.paused


async def test_a_durable_of_others_is_listed_without_a_service(desk: Desk, admin: Admin) -> None:
    await desk.client.jetstream().pull_subscribe("events.>", "theirs", stream="EVENTS")

    [view] = await admin.consumers()

    assert (view.durable, view.service, view.filters) == ("theirs", "", ("events.>",))


async def test_listeners_are_found_by_name_pattern_and_none_by_another_event(
    desk: Desk, admin: Admin
) -> None:
    specs = [
        listener("welcome", "user.created"),
        listener("changes", "user.*"),
        listener("vendors", "vendor.>"),
        ConsumerSpec("audit__all", "audit", "all", (">",)),
    ]
    await desk.topology.ensure_consumers(specs)

    assert await admin.listeners_of("user.created") == (
        "audit__all",
        "mailer__changes",
        "mailer__welcome",
    )
    assert await admin.listeners_of("vendor.status.changed") == ("audit__all", "mailer__vendors")


async def test_a_durable_without_filters_takes_everything(desk: Desk, admin: Admin) -> None:
    config = {"name": "theirs", "durable_name": "theirs", "ack_policy": "explicit"}
    body = {"stream_name": "EVENTS", "config": config}
    await desk.api.call("CONSUMER.CREATE.EVENTS.theirs", body)

    assert await admin.listeners_of("user.created") == ("theirs",)


async def test_nobody_listens_where_there_is_no_durable_or_no_stream(
    desk: Desk, admin: Admin
) -> None:
    assert await admin.listeners_of("user.created") == ()

    await desk.api.call("STREAM.DELETE.EVENTS")

    assert await admin.listeners_of("user.created") == ()
    assert "EVENTS" not in {view.name for view in await admin.streams()}


async def test_a_stored_message_comes_back_as_it_was_published(desk: Desk, admin: Admin) -> None:
    headers = {"Nats-Msg-Id": "u-1", "ce-id": "u-1", "X-Note": "a: b\x0cc", "X-Empty": ""}
    body = bytes(range(256))
    await desk.client.jetstream().publish("events.user.created", body, headers=headers)

    message = await admin.message("EVENTS", 1)

    lowered = {"nats-msg-id": "u-1", "ce-id": "u-1", "x-note": "a: b\x0cc", "x-empty": ""}
    assert message == Message("events.user.created", lowered, body, "u-1")


async def test_a_message_without_headers_has_none(desk: Desk, admin: Admin) -> None:
    await desk.client.jetstream().publish("events.user.created", b"{}")

    assert await admin.message("EVENTS", 1) == Message("events.user.created", {}, b"{}", None)


async def test_a_message_that_is_not_there_is_none(admin: Admin) -> None:
    assert await admin.message("EVENTS", 7) is None
    assert await admin.message("NOBODY", 1) is None


async def test_messages_are_read_by_subject_in_order(desk: Desk, admin: Admin) -> None:
    await desk.publish("user.created", "vendor.created", "user.updated", "user.created")

    assert await read(admin.messages("EVENTS", "events.user.*")) == [
        (1, "events.user.created"),
        (3, "events.user.updated"),
        (4, "events.user.created"),
    ]
    assert await read(admin.messages("EVENTS", "events.vendor.created")) == [
        (2, "events.vendor.created")
    ]


async def test_a_read_message_equals_the_one_that_is_looked_up(desk: Desk, admin: Admin) -> None:
    await desk.client.jetstream().publish(
        "events-dlq.mailer.welcome.user.created",
        b"{}",
        headers={"Nats-Msg-Id": "dlq:1", "Eventbus-Dead-Reason": "invalid"},
    )

    [stored] = [one async for one in admin.messages("EVENTS_DLQ")]

    assert stored.message == await admin.message("EVENTS_DLQ", 1)
    assert (stored.stream, stored.sequence, stored.message.id) == ("EVENTS_DLQ", 1, "dlq:1")
    age = datetime.now(UTC) - stored.time  # noqa: TID251 - the server's clock
    assert timedelta(0) <= age < timedelta(minutes=1)


async def test_reading_starts_at_a_sequence_or_a_time(desk: Desk, admin: Admin) -> None:
    await desk.publish("user.one", "user.two", "user.three")
    _, second, _ = [one async for one in admin.messages("EVENTS")]

    from_sequence = await read(admin.messages("EVENTS", start=2))
    from_time = await read(admin.messages("EVENTS", start=second.time))
    from_after_the_end = await read(admin.messages("EVENTS", start=4))

    assert from_sequence == from_time == [(2, "events.user.two"), (3, "events.user.three")]
    assert from_after_the_end == []


async def test_reading_goes_on_over_many_batches(
    desk: Desk, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_BATCH", 2)
    await desk.publish(*(f"user.number_{index}" for index in range(7)))

    everything = await read(admin.messages("EVENTS", "events.user.*"))
    some = await read(admin.messages("EVENTS", "events.user.*", limit=5))

    assert [sequence for sequence, _ in everything] == [1, 2, 3, 4, 5, 6, 7]
    assert [sequence for sequence, _ in some] == [1, 2, 3, 4, 5]


async def test_reading_goes_on_where_a_batch_is_full_by_size(
    desk: Desk, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_BATCH_BYTES", 1000)
    for _ in range(5):
        await desk.client.jetstream().publish("events.user.created", bytes(700))

    found = await read(admin.messages("EVENTS"))

    assert [sequence for sequence, _ in found] == [1, 2, 3, 4, 5]


async def test_reading_what_nobody_stored_yields_nothing(admin: Admin) -> None:
    assert await read(admin.messages("EVENTS", "events.nobody.*")) == []


async def test_reading_a_stream_that_is_not_there_is_an_error(admin: Admin) -> None:
    with pytest.raises(DriverError, match="stream NOBODY can't be read: 503"):
        await read(admin.messages("NOBODY"))


async def test_no_answer_to_a_read_is_an_error_of_ours(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_PATIENCE", 0.05)
    await wire.subscribe("silent", lambda message: None)

    answers: AsyncGenerator[Reply, None] = replies(wire, "silent", b"")

    with pytest.raises(DriverError, match="no answer to silent within"):
        await anext(answers)


async def test_what_the_server_refuses_is_an_error_of_ours(desk: Desk, admin: Admin) -> None:
    with pytest.raises(TopologyError, match="refuses it"):
        await admin.message("EVENTS", 0)
