"""Durables against the real server: created, compared, widened, made again, orphaned."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import nats
import pytest
from nats.aio.client import Client

from eventbus.drivers.base import ConsumerSpec
from eventbus.drivers.jetstream.api import Api, table
from eventbus.embedded import NatsServer
from eventbus.errors import TopologyError
from tests.integration.desk import SECOND, Desk, listener

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    connected = await nats.connect(nats_server.url, allow_reconnect=False)
    yield connected
    await connected.close()


@pytest.fixture
def desk(client: Client) -> Desk:
    return Desk(client)


async def test_a_durable_is_on_the_server_as_the_design_says(desk: Desk) -> None:
    await desk.start(listener("welcome", "user.created", "vendor.*", slots=200, ack_wait=12))

    config = table((await desk.durable("mailer__welcome"))["config"])

    metadata = table(config.pop("metadata"))
    assert config == {
        "name": "mailer__welcome",
        "durable_name": "mailer__welcome",
        "ack_policy": "explicit",
        "ack_wait": 12 * SECOND,
        "deliver_policy": "new",
        "filter_subjects": [
            "events-retry.mailer.welcome.>",
            "events.user.created",
            "events.vendor.*",
        ],
        "max_ack_pending": 2000,
        "max_deliver": -1,
        "max_waiting": 512,
        "num_replicas": 0,
        "replay_policy": "instant",
    }
    assert (metadata["eventbus.owner"], metadata["eventbus.listener"]) == ("mailer", "welcome")


async def test_filters_hold_no_event_that_another_one_covers(desk: Desk) -> None:
    spec = listener("welcome", "user.created", "user.*", "vendor.>")

    filters = desk.topology.filters(spec)

    assert filters == ("events-retry.mailer.welcome.>", "events.user.*", "events.vendor.>")


async def test_a_new_durable_starts_where_its_spec_says(desk: Desk) -> None:
    await desk.start()
    await desk.publish("user.one", "user.two", "user.three")
    stored = await desk.api.call("STREAM.MSG.GET.EVENTS", {"seq": 3})
    third = datetime.fromisoformat(str(table(stored["message"])["time"]))
    earlier = third - timedelta(microseconds=1)

    await desk.start(
        listener("fresh", "user.*"),
        listener("everything", "user.*", start="all"),
        listener("second", "user.*", start=2),
        listener("timed", "user.*", start=earlier),
    )
    await desk.publish("user.four")

    taken = {
        name: await desk.take(f"mailer__{name}", 10)
        for name in ("fresh", "everything", "second", "timed")
    }
    assert taken == {
        "fresh": ["user.four"],
        "everything": ["user.one", "user.two", "user.three", "user.four"],
        "second": ["user.two", "user.three", "user.four"],
        "timed": ["user.three", "user.four"],
    }


@pytest.mark.parametrize("start", ["newest", 0, True, datetime(2026, 1, 1)])  # noqa: DTZ001
async def test_a_start_that_is_none_is_refused_before_anything_is_asked(
    desk: Desk, start: object
) -> None:
    with pytest.raises(ValueError, match="no place to start"):
        await desk.topology.ensure_consumers([listener(start=start)])

    assert desk.verbs == []


async def test_a_durable_that_exists_keeps_its_position(desk: Desk) -> None:
    await desk.start(listener("welcome", "user.*"))
    await desk.publish("user.one", "user.two")
    assert await desk.take("mailer__welcome", 1) == ["user.one"]

    await desk.start(listener("welcome", "user.*", start="all"))

    assert await desk.take("mailer__welcome", 10) == ["user.two"]


async def test_who_loses_the_race_to_create_a_durable_takes_the_winners(client: Client) -> None:
    winner, loser = Desk(client), Desk(client)
    await winner.start()
    await winner.publish("user.one")

    async def first() -> None:
        await winner.start(listener("welcome", "user.*"))

    loser.before["CONSUMER.CREATE.EVENTS.mailer__welcome"] = first

    await loser.start(listener("welcome", "user.*", start="all"))

    assert loser.told == []
    assert await loser.take("mailer__welcome", 10) == []


async def test_more_filters_are_applied_and_the_gap_is_named(desk: Desk) -> None:
    await desk.start(listener("welcome", "user.created"))
    await desk.publish("vendor.created", "user.created", "vendor.created", "vendor.changed")
    assert await desk.take("mailer__welcome", 10) == ["user.created"]
    desk.told.clear()

    await desk.start(listener("welcome", "*.created"))
    await desk.publish("vendor.created")

    [(durable, change)] = desk.told
    assert durable == "mailer__welcome"
    assert change.startswith("filter_subjects changed from [")
    assert "it skips 2 of 2 stored on events.*.created up to sequence 4" in change
    assert await desk.take("mailer__welcome", 10) == ["vendor.created"]


async def test_the_gap_ends_where_the_durable_has_looked(desk: Desk) -> None:
    await desk.start(listener("welcome", "user.created"))
    await desk.publish("vendor.created", "user.created", "vendor.created")
    assert await desk.take("mailer__welcome", 1) == ["user.created"]
    desk.told.clear()

    await desk.start(listener("welcome", "user.created", "vendor.created"))

    [(_, change)] = desk.told
    assert "it skips 1 of 2 stored on events.vendor.created up to sequence 3" in change
    assert await desk.take("mailer__welcome", 10) == ["vendor.created"]


async def test_no_gap_is_named_where_nothing_is_skipped(desk: Desk) -> None:
    await desk.start(listener("welcome", "user.created"))
    await desk.publish("vendor.created", "user.created")
    desk.told.clear()

    await desk.start(listener("welcome", "user.created", "vendor.created"))

    [(_, change)] = desk.told
    assert "skips" not in change
    assert await desk.take("mailer__welcome", 10) == ["vendor.created", "user.created"]


async def test_fewer_filters_are_refused(desk: Desk) -> None:
    await desk.start(listener("welcome", "user.created", "user.deleted"))

    with pytest.raises(TopologyError) as caught:
        await desk.start(listener("welcome", "user.created"))

    assert caught.value.thing == "durable mailer__welcome"
    assert "filter_subjects is declared [" in caught.value.problem
    assert "listen to what it took before as well" in caught.value.remedy
    config = table((await desk.durable("mailer__welcome"))["config"])
    assert len(config["filter_subjects"]) == 3  # type: ignore[arg-type]


async def test_more_slots_and_another_ack_wait_are_applied(desk: Desk) -> None:
    await desk.start(listener(slots=200, ack_wait=30))

    await desk.start(listener(slots=150, ack_wait=60))

    config = table((await desk.durable("mailer__welcome"))["config"])
    assert (config["max_ack_pending"], config["ack_wait"]) == (1500, 60 * SECOND)


async def test_a_durable_of_nobody_is_left_alone(desk: Desk) -> None:
    await desk.start()
    await desk.client.jetstream().pull_subscribe("events.>", "mailer__welcome", stream="EVENTS")

    with pytest.raises(TopologyError, match="durable mailer__welcome: belongs to somebody else"):
        await desk.start(listener())


async def test_two_services_whose_durables_get_one_name_are_told_apart(desk: Desk) -> None:
    await desk.start(ConsumerSpec("a__b__c", "a__b", "c", ("user.created",)))

    with pytest.raises(TopologyError, match="belongs to listener c of service a__b"):
        await desk.start(ConsumerSpec("a__b__c", "a", "b__c", ("user.created",)))


async def test_back_off_that_somebody_added_is_refused(desk: Desk) -> None:
    await desk.start(listener())
    config = table((await desk.durable("mailer__welcome"))["config"])
    body = {"stream_name": "EVENTS", "config": {**config, "backoff": [SECOND]}}
    await desk.api.call("CONSUMER.CREATE.EVENTS.mailer__welcome", body)

    with pytest.raises(TopologyError, match="backoff is declared"):
        await desk.start(listener())


async def test_a_subject_that_nats_does_not_know_is_refused(desk: Desk) -> None:
    spec = listener("welcome", "user..created")

    with pytest.raises(TopologyError, match="durable mailer__welcome: the server refuses it"):
        await desk.start(spec)


async def test_a_durable_made_again_neither_replays_nor_skips(desk: Desk) -> None:
    spec = listener("welcome", "user.*")
    await desk.start(spec)
    await desk.publish("user.one", "user.two", "vendor.one", "user.three")
    assert await desk.take("mailer__welcome", 2) == ["user.one", "user.two"]
    await desk.api.call("CONSUMER.DELETE.EVENTS.mailer__welcome")
    await desk.publish("user.four")

    await desk.topology.recreate_consumer(spec, 2)

    assert desk.told[-1] == ("mailer__welcome", "created again, it goes on from 3")
    assert await desk.take("mailer__welcome", 10) == ["user.three", "user.four"]
    await desk.start(spec)


async def test_a_durable_made_again_before_anything_was_handled_starts_at_the_first(
    desk: Desk,
) -> None:
    spec = listener("welcome", "user.*")
    await desk.start(spec)
    await desk.api.call("CONSUMER.DELETE.EVENTS.mailer__welcome")
    await desk.publish("user.one")

    await desk.topology.recreate_consumer(spec, 0)

    assert await desk.take("mailer__welcome", 10) == ["user.one"]


async def test_a_stream_made_anew_is_read_from_its_beginning(desk: Desk) -> None:
    spec = listener("welcome", "user.*")
    await desk.start(spec)
    await desk.publish("user.one", "user.two", "user.three")
    await desk.api.call("STREAM.DELETE.EVENTS")

    await desk.topology.recreate_consumer(spec, 3)
    await desk.publish("user.four")

    assert await desk.take("mailer__welcome", 10) == ["user.four"]


async def test_only_the_first_process_makes_a_durable_again(desk: Desk) -> None:
    spec = listener("welcome", "user.*")
    await desk.start(spec)
    await desk.publish("user.one", "user.two")
    await desk.api.call("CONSUMER.DELETE.EVENTS.mailer__welcome")

    await desk.topology.recreate_consumer(spec, 1)
    await desk.topology.recreate_consumer(spec, 0)

    assert await desk.take("mailer__welcome", 10) == ["user.two"]


@pytest.mark.parametrize("mode", ["check", "off"])
async def test_other_modes_make_nothing_again(client: Client, mode: str) -> None:
    await Desk(client).start()
    desk = Desk(client, provision=mode)

    with pytest.raises(TopologyError, match=f"EVENTBUS_PROVISION={mode} creates nothing"):
        await desk.topology.recreate_consumer(listener(), 5)


async def test_a_durable_that_nothing_declares_is_reported(desk: Desk) -> None:
    await desk.start(listener("welcome"), listener("old_name"))
    await desk.start(ConsumerSpec("audit__all", "audit", "all", (">",)))
    desk.told.clear()

    orphans = await desk.topology.orphans("mailer", [listener("welcome")])

    assert orphans == ("mailer__old_name",)
    [(thing, change)] = desk.told
    assert thing == "mailer__old_name"
    assert change.startswith("nobody declares it any more")


async def test_a_list_is_read_page_by_page() -> None:
    rows = [{"name": f"durable_{index}"} for index in range(5)]

    async def paged(subject: str, payload: bytes, within: float) -> bytes:
        offset = json.loads(payload)["offset"]
        return json.dumps({"total": 5, "consumers": rows[offset : offset + 2]}).encode()

    listed = [row async for row in Api(paged).items("CONSUMER.LIST.EVENTS", "consumers")]

    assert listed == rows
