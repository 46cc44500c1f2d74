"""Streams against the real server: created, compared, changed, refused; and what flows by itself."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import nats
import pytest
from nats.aio.client import Client

from eventbus.drivers.jetstream.api import Api, ApiError, Table, number, table
from eventbus.drivers.jetstream.streams import declared_streams, negotiated, outside
from eventbus.drivers.jetstream.topology import Topology
from eventbus.embedded import NatsServer
from eventbus.errors import DriverError, NoJetStreamError, ServerTooOldError, TopologyError
from eventbus.settings import Settings
from tests.integration.desk import SECOND, Desk, excerpt, listener
from tests.waiting import eventually

pytestmark = [pytest.mark.nats]

DAY = 86400 * SECOND
STREAMS = ("EVENTS_LATER", "EVENTS", "EVENTS_STATE", "EVENTS_DLQ", "KV_EVENTS_ATTEMPTS")


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url, allow_reconnect=False)
    yield connected
    await connected.close()


@pytest.fixture
def desk(client: Client) -> Desk:
    return Desk(client)


EXPECTED: dict[str, Table] = {
    "EVENTS": {
        "subjects": ["events.>", "events-inbox.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": 7 * DAY,
        "max_bytes": 512 * 1024 * 1024,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "duplicate_window": 600 * SECOND,
        "num_replicas": 1,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "allow_batched": True,
        "allow_msg_schedules": None,
        "sources": [
            {
                "name": "EVENTS_LATER",
                "subject_transforms": [
                    {"src": "events-due.>", "dest": "events.>"},
                    {"src": "events-retry.>", "dest": "events-retry.>"},
                ],
            }
        ],
    },
    "EVENTS_LATER": {
        "subjects": ["events-sched.>", "events-due.>", "events-retry.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": 7 * DAY,
        "max_bytes": -1,
        "duplicate_window": 600 * SECOND,
        "allow_msg_ttl": True,
        "allow_msg_schedules": True,
        "allow_atomic": True,
        "sources": None,
    },
    "EVENTS_STATE": {
        "subjects": ["events-state.>"],
        "storage": "file",
        "discard": "new",
        "max_age": 0,
        "max_bytes": 512 * 1024 * 1024,
        "max_msgs_per_subject": 1,
    },
    "EVENTS_DLQ": {
        "subjects": ["events-dlq.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": 0,
        "max_bytes": 512 * 1024 * 1024,
        "max_msgs_per_subject": -1,
        "allow_direct": True,
    },
    "KV_EVENTS_ATTEMPTS": {
        "subjects": ["$KV.EVENTS_ATTEMPTS.>"],
        "storage": "file",
        "discard": "new",
        "max_age": 7 * DAY,
        "max_bytes": -1,
        "max_msgs_per_subject": 1,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "subject_delete_marker_ttl": None,
    },
}


@pytest.mark.parametrize("name", STREAMS)
async def test_each_stream_is_on_the_server_as_the_design_says(desk: Desk, name: str) -> None:
    await desk.start()

    found = await desk.stream(name)

    assert excerpt(found, list(EXPECTED[name])) == EXPECTED[name]
    metadata = table(found["metadata"])
    assert metadata["eventbus.owner"] == "eventbus"
    assert metadata["eventbus.topology"] == "1"
    assert len(str(metadata["eventbus.hash"])) == 16


async def test_namespace_and_limits_come_from_the_settings(client: Client) -> None:
    desk = Desk(client, namespace="shop", max_bytes=2**20, max_age="1h", duplicate_window=60)

    await desk.start()

    found = await desk.stream("SHOP")
    limits = excerpt(found, ["subjects", "max_bytes", "max_age", "duplicate_window"])
    assert limits == {
        "subjects": ["shop.>", "shop-inbox.>"],
        "max_bytes": 2**20,
        "max_age": 3600 * SECOND,
        "duplicate_window": 60 * SECOND,
    }
    created = {"SHOP_LATER", "SHOP", "SHOP_STATE", "SHOP_DLQ", "KV_SHOP_ATTEMPTS"}
    assert {name for name, _ in desk.told} == created


async def test_the_attempts_bucket_is_one_for_any_client(desk: Desk) -> None:
    await desk.start()

    bucket = await desk.client.jetstream().key_value("EVENTS_ATTEMPTS")
    await bucket.create("mailer__welcome.EVENTS.1", b"1")

    assert (await bucket.get("mailer__welcome.EVENTS.1")).value == b"1"


async def test_two_namespaces_share_a_server(client: Client) -> None:
    first, second = Desk(client), Desk(client, namespace="shop")

    await first.start()
    await second.start()

    assert len(second.told) == 5


async def test_the_second_start_only_asks_and_changes_nothing(client: Client) -> None:
    await Desk(client).start(listener(), listener("audit", ">"))
    again = Desk(client)
    before = [await again.stream(name) for name in STREAMS]
    again.verbs.clear()

    await again.start(listener(), listener("audit", ">"))

    assert sorted({verb.split(".")[0:2][-1] for verb in again.verbs}) == ["INFO"]
    assert len(again.verbs) == 1 + 5 + 2
    assert again.told == []
    assert [await again.stream(name) for name in STREAMS] == before


async def test_five_services_that_start_at_once_all_start(nats_server: NatsServer) -> None:
    clients = [await nats.connect(nats_server.url, allow_reconnect=False) for _ in range(5)]
    desks = [Desk(client) for client in clients]
    shared = listener("welcome", "user.created")

    async with asyncio.TaskGroup() as group:
        for index, desk in enumerate(desks):
            group.create_task(desk.start(shared, listener(f"own_{index}", "user.*")))

    listed = await desks[0].api.call("CONSUMER.NAMES.EVENTS")
    expected = sorted(["mailer__welcome", *(f"mailer__own_{index}" for index in range(5))])
    assert sorted(listed["consumers"]) == expected  # type: ignore[arg-type, type-var]
    for client in clients:
        await client.close()


async def test_who_loses_the_race_to_create_a_stream_compares(client: Client) -> None:
    winner, loser = Desk(client, max_bytes=2**20), Desk(client, max_bytes=2**21)
    loser.before["STREAM.CREATE.EVENTS_LATER"] = winner.start

    await loser.start()

    assert dict(loser.told)["EVENTS"] == "max_bytes changed from 1048576 to 2097152"


async def test_who_loses_the_race_to_a_stranger_is_refused(desk: Desk) -> None:
    async def stranger() -> None:
        await desk.api.call("STREAM.CREATE.EVENTS", {"name": "EVENTS", "subjects": ["theirs"]})

    desk.before["STREAM.CREATE.EVENTS"] = stranger

    with pytest.raises(TopologyError, match="stream EVENTS: belongs to somebody else"):
        await desk.start()


async def test_check_names_everything_that_is_missing_and_creates_nothing(client: Client) -> None:
    desk = Desk(client, provision="check")

    with pytest.raises(TopologyError) as caught:
        await desk.start()

    assert caught.value.thing == ", ".join(f"stream {name}" for name in STREAMS)
    assert "EVENTBUS_PROVISION=auto" in str(caught.value)
    assert (await desk.api.call("STREAM.NAMES"))["total"] == 0


async def test_check_passes_where_all_is_as_declared(client: Client) -> None:
    await Desk(client).start(listener())
    desk = Desk(client, provision="check")

    await desk.start(listener())

    assert desk.told == []


async def test_check_refuses_a_missing_durable(client: Client) -> None:
    await Desk(client).start()
    desk = Desk(client, provision="check")

    with pytest.raises(TopologyError, match="durable mailer__welcome: doesn't exist"):
        await desk.start(listener())


async def test_check_refuses_even_what_auto_would_apply(client: Client) -> None:
    await Desk(client, max_bytes=2**20).start()
    desk = Desk(client, max_bytes=2**21, provision="check")

    with pytest.raises(TopologyError) as caught:
        await desk.start()

    expected = "stream EVENTS: max_bytes is declared 2097152, the server has 1048576"
    assert expected in caught.value.problem
    assert "EVENTBUS_PROVISION=auto" in caught.value.remedy


async def test_off_asks_nothing(client: Client) -> None:
    desk = Desk(client, provision="off")

    info = await desk.topology.ensure_server()
    await desk.start(listener())
    orphans = await desk.topology.orphans("mailer", [])

    assert (info.version, info.missing, orphans) == ("", (), ())
    assert desk.verbs == []


async def test_auto_raises_limits_and_tells(client: Client) -> None:
    await Desk(client, max_bytes=2**20, max_age="1d").start()
    desk = Desk(client, max_bytes=2**21, max_age="2d")

    await desk.start()

    assert excerpt(await desk.stream(), ["max_bytes", "max_age"]) == {
        "max_bytes": 2**21,
        "max_age": 2 * DAY,
    }
    changes = dict(desk.told)
    assert changes["EVENTS_DLQ"] == "max_bytes changed from 1048576 to 2097152"
    assert changes["EVENTS_LATER"] == "max_age changed from 86400 s to 172800 s"


async def test_auto_keeps_what_others_set_on_the_stream(client: Client) -> None:
    await Desk(client, max_bytes=2**20).start()
    desk = Desk(client, max_bytes=2**21)
    await desk.edit("EVENTS", description="ours", compression="s2")

    await desk.start()

    found = await desk.stream()
    assert (found["description"], found["compression"], found["max_bytes"]) == (
        "ours",
        "s2",
        2**21,
    )


async def test_auto_refuses_to_lower_limits_and_says_how_to_keep_them(client: Client) -> None:
    await Desk(client, max_bytes=2**21, max_age="2d").start()
    desk = Desk(client, max_bytes=2**20, max_age="1d")

    with pytest.raises(TopologyError) as caught:
        await desk.start()

    assert (
        "stream EVENTS: max_bytes is declared 1048576, the server has 2097152; "
        "max_age is declared 86400 s, the server has 172800 s" in caught.value.problem
    )
    assert "EVENTBUS_MAX_BYTES=2097152 EVENTBUS_MAX_AGE=172800" in caught.value.remedy
    assert (await desk.stream())["max_bytes"] == 2**21


@pytest.mark.parametrize(
    ("stream", "field", "value"),
    [
        ("EVENTS", "discard", "old"),
        ("EVENTS", "sources", []),
        ("EVENTS", "duplicate_window", 3600 * SECOND),
        ("EVENTS_STATE", "max_msgs_per_subject", 5),
        ("EVENTS_DLQ", "subjects", ["events-dlq.>", "mine.>"]),
    ],
)
async def test_auto_refuses_what_somebody_changed(
    desk: Desk, stream: str, field: str, value: object
) -> None:
    await desk.start()
    await desk.edit(stream, **{field: value})

    with pytest.raises(TopologyError) as caught:
        await desk.start()

    assert caught.value.thing == f"stream {stream}"
    assert f"{field} is declared " in caught.value.problem
    assert "changed by somebody since" in caught.value.problem


@pytest.mark.parametrize(
    ("stream", "field", "value"),
    [
        ("EVENTS", "max_msgs", 10),
        ("EVENTS", "allow_direct", False),
        ("EVENTS", "subjects", ["events.>"]),
        ("EVENTS_LATER", "max_bytes", 2**20),
        ("EVENTS_DLQ", "max_age", DAY),
    ],
)
async def test_auto_restores_what_somebody_took_away(
    desk: Desk, stream: str, field: str, value: object
) -> None:
    await desk.start()
    declared = (await desk.stream(stream))[field]
    await desk.edit(stream, **{field: value})
    desk.told.clear()

    await desk.start()

    assert (await desk.stream(stream))[field] == declared
    assert [thing for thing, _ in desk.told] == [stream]


async def test_a_stream_of_somebody_else_is_left_alone(desk: Desk) -> None:
    await desk.api.call("STREAM.CREATE.EVENTS", {"name": "EVENTS", "subjects": ["theirs.>"]})

    with pytest.raises(TopologyError) as caught:
        await desk.start()

    assert caught.value.thing == "stream EVENTS"
    assert "belongs to somebody else: it holds theirs.>" in caught.value.problem
    assert "EVENTBUS_NAMESPACE" in caught.value.remedy
    assert (await desk.stream())["subjects"] == ["theirs.>"]


async def test_overlapping_subjects_name_the_other_stream(desk: Desk) -> None:
    await desk.api.call("STREAM.CREATE.LEGACY", {"name": "LEGACY", "subjects": ["events.user.*"]})

    with pytest.raises(TopologyError) as caught:
        await desk.start()

    assert caught.value.thing == "stream EVENTS"
    assert "overlaps with stream LEGACY on events.>" in caught.value.problem


async def test_replicas_that_a_lone_server_can_not_have_name_the_setting(client: Client) -> None:
    with pytest.raises(TopologyError, match="EVENTBUS_REPLICAS=1"):
        await Desk(client, replicas=3).start()


async def test_what_a_schedule_fires_arrives_as_the_event(desk: Desk) -> None:
    await desk.start(listener("welcome", "user.created"))
    due = datetime.now(UTC) + timedelta(milliseconds=50)  # noqa: TID251 - the server's clock
    headers = {
        "Nats-Schedule": f"@at {due.isoformat().replace('+00:00', 'Z')}",
        "Nats-Schedule-Target": "events-due.user.created",
        "Nats-TTL": "never",
        "ce-id": "u-1",
    }

    await desk.client.jetstream().publish("events-sched.user.u-1", b"ada", headers=headers)

    async def arrived() -> bool:
        return number((await desk.durable("mailer__welcome"))["num_pending"]) == 1

    await eventually(arrived)
    stored = await desk.api.call("STREAM.MSG.GET.EVENTS", {"last_by_subj": "events.user.created"})
    assert table(stored["message"])["subject"] == "events.user.created"
    assert await desk.take("mailer__welcome", 10) == ["ada"]


async def test_a_retry_comes_back_to_its_listener_alone(desk: Desk) -> None:
    await desk.start(listener("welcome", "user.created"), listener("audit", ">"))

    subject = "events-retry.mailer.welcome.user.created"
    await desk.client.jetstream().publish(subject, b"again")

    async def arrived() -> bool:
        return number((await desk.durable("mailer__welcome"))["num_pending"]) == 1

    await eventually(arrived)
    assert await desk.take("mailer__welcome", 10) == ["again"]
    assert await desk.take("mailer__audit", 10) == []


async def test_a_state_keeps_the_last_of_each_key(desk: Desk) -> None:
    await desk.start()
    stream = desk.client.jetstream()

    for body in (b"first", b"last"):
        await stream.publish("events-state.user.changed.u-1", body)

    info = await desk.api.call("STREAM.INFO.EVENTS_STATE")
    assert table(info["state"])["messages"] == 1
    message = await stream.get_last_msg("EVENTS_STATE", "events-state.user.changed.u-1")
    assert message.data == b"last"


@pytest.mark.usefixtures("_nats_binary")
async def test_a_server_without_jetstream_is_named() -> None:
    async with NatsServer(jetstream=False) as server:
        client = await nats.connect(server.url, allow_reconnect=False)
        url = server.url.replace("nats://", "nats://ada:secret@")

        with pytest.raises(NoJetStreamError) as caught:
            await Desk(client, nats_url=url).topology.ensure_server()

        assert caught.value.server == server.url.removeprefix("nats://")
        await client.close()


@pytest.mark.usefixtures("_nats_binary")
async def test_an_account_without_jetstream_is_refused() -> None:
    config = """
    accounts {
      WITH { jetstream: enabled, users: [{ user: ada, password: a }] }
      WITHOUT { users: [{ user: bob, password: b }] }
    }
    """
    async with NatsServer(config=config) as server:
        client = await nats.connect(server.url, user="bob", password="b", allow_reconnect=False)

        with pytest.raises(NoJetStreamError):
            await Desk(client).topology.ensure_server()

        await client.close()


async def test_the_server_tells_its_level(desk: Desk) -> None:
    info = await desk.topology.ensure_server()

    assert info.level >= 4
    assert info.missing == ()


@pytest.mark.parametrize(
    ("level", "version", "missing"),
    [
        (2, "2.12", ("fast ingest", "cron schedules")),
        (3, "2.12", ("fast ingest", "cron schedules", "schedules")),
        (4, "2.14", ()),
        (5, "2.15", ()),
        (6, "newer than 2.15", ()),
    ],
)
def test_the_level_says_what_a_server_can_not_do(
    level: int, version: str, missing: tuple[str, ...]
) -> None:
    info = negotiated(level)

    assert (info.version, info.missing) == (version, missing)


@pytest.mark.parametrize(("level", "found"), [(0, "2.10 or older"), (1, "2.11")])
def test_a_server_that_is_too_old_is_refused_with_both_versions(level: int, found: str) -> None:
    with pytest.raises(ServerTooOldError) as caught:
        negotiated(level)

    assert (caught.value.found, caught.value.needed) == (found, "2.12")


def test_a_field_that_a_level_lacks_is_left_out() -> None:
    fields = {
        level: {name for stream in declared_streams(Settings(), level) for name in stream}
        for level in (3, 4)
    }

    assert fields[4] - fields[3] == {"allow_batched"}


async def test_no_answer_is_an_error_of_ours_that_names_the_permission(client: Client) -> None:
    async def silent(subject: str, payload: bytes, within: float) -> bytes:
        raise TimeoutError

    topology = Topology(Api(silent), Settings(), lambda signal: None)

    with pytest.raises(DriverError, match=r"no permission on \$JS.API"):
        await topology.ensure_streams()


async def test_an_error_of_the_api_keeps_its_codes(desk: Desk) -> None:
    with pytest.raises(ApiError) as caught:
        await desk.api.call("STREAM.INFO.NOBODY")

    assert (caught.value.code, caught.value.err_code) == (404, 10059)
    assert caught.value.description == "stream not found"


def test_a_filter_that_a_stream_never_holds_is_found() -> None:
    _, events, *_ = declared_streams(Settings(), 5)
    held = ("events.user.*", "events-inbox.mailer.>", "events-retry.mailer.welcome.>")

    found = outside((*held, "events-due.user.created", "orders.placed"), events)

    assert found == ("events-due.user.created", "orders.placed")
