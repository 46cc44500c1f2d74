"""Consuming from the real server: slots, stopping, lost requests, and durables that vanish."""

import asyncio
import re
import time

import pytest

from eventbus.drivers.base import ConsumerRecovered, TopologyChanged
from eventbus.drivers.jetstream import consumer as consumer_module
from eventbus.drivers.jetstream import trouble as trouble_module
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.embedded import NatsServer
from eventbus.envelope import Message
from tests.integration.rig import (
    Line,
    Taken,
    Told,
    consuming,
    driver_of,
    event,
    hpub,
    listener,
    pending,
    plain,
    put_raw,
)
from tests.waiting import eventually

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]


async def test_an_event_arrives_as_it_was_published(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken):
        receipt = await driver.publish(event(1, body=b'{"a": 1}'))

        delivery = await taken.next()
        await delivery.ack()

    assert delivery.message == Message(
        "events.user.created",
        {"ce-id": "id-1", "ce-type": "user.created", "nats-msg-id": "id-1"},
        b'{"a": 1}',
        "id-1",
    )
    assert (delivery.stream, delivery.sequence) == ("EVENTS", receipt.sequence)
    assert delivery.deliveries == 1
    assert abs(delivery.stored_at.timestamp() - time.time()) < 5  # noqa: TID251 - server's clock


async def test_no_more_than_the_slots_are_in_hand(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken, listener(slots=3)):
        for number in range(10):
            await driver.publish(event(number))
        held = [await taken.next() for _ in range(3)]
        assert await pending(nats_server) == (7, 3)

        await held[1].ack()
        fourth = await taken.next()

        assert await pending(nats_server) == (6, 3)
        assert taken.waiting() == 0
        assert [one.sequence for one in (*held, fourth)] == [1, 2, 3, 4]


async def test_many_events_flow_through_few_slots(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken, listener(slots=8)):
        await asyncio.gather(*(driver.publish(event(n)) for n in range(1000)))

        ids = await taken.acked(1000)

        assert sorted(ids) == sorted(f"id-{n}" for n in range(1000))
        assert await pending(nats_server) == (0, 0)


async def test_stopping_hands_back_what_is_under_way_and_asks_for_no_more(
    nats_server: NatsServer,
) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver:
        async with consuming(driver, taken, listener(slots=50, ack_wait=30.0)) as consumer:
            publishing = [asyncio.ensure_future(driver.publish(event(n))) for n in range(300)]  # noqa: TID251 - a load beside
            await taken.next()
            started = time.monotonic()

            await consumer.stop()

            took = time.monotonic() - started
            await asyncio.gather(*publishing)
            in_hand = taken.waiting() + 1
        assert took < 10
        waiting, unsettled = await pending(nats_server)
        # What went back is pending again at once, or un-acknowledged and due at once.
        assert in_hand <= unsettled <= 50
        assert waiting + unsettled == 300
        other = Taken()
        async with consuming(driver, other, listener(slots=400, ack_wait=30.0)):
            returned = [await other.next() for _ in range(300 - in_hand)]
        assert len({one.sequence for one in returned}) == 300 - in_hand


async def test_stopping_waits_until_the_server_has_heard_of_it(nats_server: NatsServer) -> None:
    sent: list[bytes] = []

    def note(data: bytes) -> bytes:
        sent.append(data)
        return data

    async with Line(nats_server) as line, driver_of(line.url) as driver:
        async with consuming(driver, Taken()) as consumer:
            await eventually(lambda: _requests(nats_server, 1))
            line.forth = note

            await consumer.stop()

        said = b"".join(sent)
    # Else what arrives between the answer and the end of the interest is in hand of nobody.
    assert said.index(b"UNSUB") < said.rindex(b"PING")


async def test_after_stopping_what_is_in_hand_can_be_settled(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver:
        async with consuming(driver, taken):
            await driver.publish(event())
            delivery = await taken.next()

        await delivery.ack()

        assert await pending(nats_server) == (0, 0)


async def test_stopping_twice_is_fine(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url) as driver, consuming(driver, Taken()) as consumer:
        await consumer.stop()
        await consumer.stop()


async def test_a_deleted_durable_is_created_again_without_a_gap_or_a_repeat(
    nats_server: NatsServer,
) -> None:
    taken, told = Taken(), Told()
    async with driver_of(nats_server.url, told) as driver, consuming(driver, taken):
        await asyncio.gather(*(driver.publish(event(n)) for n in range(20)))
        await taken.acked(19)
        held = await taken.next()
        async with plain(nats_server.url) as client:
            await client.jetstream().delete_consumer("EVENTS", "mailer__welcome")
            await driver.publish(event("meanwhile"))

        recovered = await told.until(ConsumerRecovered)
        again = {await _acked(taken), await _acked(taken)}

        assert recovered.durable == "mailer__welcome"
        assert "its durable was deleted; created again after sequence" in recovered.problem
        assert again == {held.message.id, "id-meanwhile"}
        assert await pending(nats_server) == (0, 0)
        assert taken.waiting() == 0
        assert driver.status().ready


async def _acked(taken: Taken) -> str | None:
    delivery = await taken.next()
    await delivery.ack()
    return delivery.message.id


async def test_what_another_process_had_in_hand_isnt_lost_with_the_durable(
    nats_server: NatsServer,
) -> None:
    ours, theirs = Taken(), Taken()
    async with (
        driver_of(nats_server.url) as driver,
        driver_of(nats_server.url) as other,
        consuming(other, theirs, listener(slots=1)),
    ):
        await other.publish(event("theirs"))
        await theirs.next()
        told = Told()
        driver.watch(told)
        async with consuming(driver, ours):
            await asyncio.gather(*(driver.publish(event(n)) for n in range(10)))
            await ours.acked(10)

            async with plain(nats_server.url) as client:
                await client.jetstream().delete_consumer("EVENTS", "mailer__welcome")
            await told.until(ConsumerRecovered)

            assert "id-theirs" in {await _acked(ours) for _ in range(1)}


async def test_a_new_durable_that_is_deleted_before_it_took_anything_replays_nothing(
    nats_server: NatsServer,
) -> None:
    taken, told = Taken(), Told()
    async with driver_of(nats_server.url, told) as driver:
        for number in range(5):
            await driver.publish(event(number))
        async with consuming(driver, taken), plain(nats_server.url) as client:
            await eventually(lambda: _knows_its_floor(driver))
            await client.jetstream().delete_consumer("EVENTS", "mailer__welcome")
            await told.until(ConsumerRecovered)

            await driver.publish(event("new"))

            assert await _acked(taken) == "id-new"
            assert taken.waiting() == 0


async def _knows_its_floor(driver: JetStreamDriver) -> bool:
    return all(one._progress.known for one in driver._consumers.values())


async def test_a_deleted_stream_is_provisioned_again(nats_server: NatsServer) -> None:
    taken, told = Taken(), Told()
    async with driver_of(nats_server.url, told) as driver, consuming(driver, taken):
        await driver.publish(event("gone"))
        await taken.acked(1)
        async with plain(nats_server.url) as client:
            await client.jetstream().delete_stream("EVENTS")

        await told.until(ConsumerRecovered)
        await driver.publish(event("new"))

        assert await _acked(taken) == "id-new"


async def test_a_durable_that_may_not_be_created_is_a_problem_until_somebody_does(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble_module, "TROUBLE", 0.5)
    taken, told = Taken(), Told()
    async with driver_of(nats_server.url) as owner:
        await owner.provision([listener()])
        async with driver_of(nats_server.url, told, provision="off") as driver:
            consumer = await driver.consume(listener(), taken)
            async with plain(nats_server.url) as client:
                await client.jetstream().delete_consumer("EVENTS", "mailer__welcome")
            assert driver.status().ready

            await eventually(lambda: _is_unready(driver))
            problems = driver.status().problems
            await owner.provision([listener()])
            await told.until(ConsumerRecovered)

            assert driver.status().ready
            await consumer.stop()
        assert len(problems) == 1
        assert problems[0].startswith("consumer mailer__welcome: its durable was deleted")
        assert told.of(TopologyChanged) == []


async def _is_unready(driver: JetStreamDriver) -> bool:
    return not driver.status().ready


async def test_a_lost_pull_request_is_noticed_and_repeated(nats_server: NatsServer) -> None:
    taken, told = Taken(), Told()
    async with Line(nats_server) as line, driver_of(line.url, told) as driver:
        lost: list[bytes] = []

        def lose_first(data: bytes) -> bytes:
            match = None if lost else re.search(rb"PUB \S+MSG\.NEXT\S+ \S+ \d+\r\n\S+\r\n", data)
            if match is None:
                return data
            lost.append(match[0])
            return data.replace(match[0], b"")

        line.forth = lose_first
        async with consuming(driver, taken):
            await driver.publish(event())

            delivery = await taken.next(9)

            recovered = await told.until(ConsumerRecovered)
            assert recovered.problem == "no heartbeat for 5 s"
            await delivery.ack()
    assert len(lost) == 1


async def test_a_pull_request_that_expires_is_replaced_by_one_for_all_free_slots(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "EXPIRES", 0.8)
    monkeypatch.setattr(consumer_module, "HEARTBEAT", 0.3)
    taken, expired = Taken(), asyncio.Event()

    def notice(data: bytes) -> bytes:
        if b"408 Request Timeout" in data:
            expired.set()
        return data

    async with Line(nats_server) as line, driver_of(line.url) as driver:
        line.back = notice
        async with consuming(driver, taken, listener(ack_wait=30.0)):
            await driver.publish(event("first"))
            held = [await taken.next()]
            for _ in range(3):
                expired.clear()
                await expired.wait()
            for number in range(6):
                await driver.publish(event(number))
            held += [await taken.next() for _ in range(3)]

            assert taken.waiting() == 0
            assert await pending(nats_server) == (3, 4)
            for one in held:
                await one.ack()
            assert len(await taken.acked(3)) == 3


async def test_more_than_the_slots_goes_back(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken, listener(slots=2)):
        (consumer,) = driver._consumers.values()
        await eventually(lambda: _requests(nats_server, 1))
        consumer._forget_requests()  # as after a silence: the requests may still be answered
        consumer._wake.set()
        await eventually(lambda: _requests(nats_server, 2))

        for number in range(4):
            await driver.publish(event(number))
        held = [await taken.next() for _ in range(2)]

        assert taken.waiting() == 0
        for one in held:
            await one.ack()
        assert len(await taken.acked(2)) == 2
        assert await pending(nats_server) == (0, 0)


async def _requests(server: NatsServer, count: int) -> bool:
    async with plain(server.url) as client:
        info = await client.jetstream().consumer_info("EVENTS", "mailer__welcome")
    return info.num_waiting == count


@pytest.mark.parametrize(
    "poison",
    [
        b"PUB events.user.cr\xffated 2\r\n{}\r\n",
        hpub(b"events.user.x", b"NATS"),
        hpub(b"events.user.x", b"NATS/1.0\r\n\r\n"),
        hpub(b"events.user.x", b"NATS/1.0 2\xff\xff \xff\r\n\r\n"),
        hpub(b"events.user.x", b"NATS/1.0\r\na\xff: \xff\r\n\r\n"),
    ],
    ids=["subject", "no-block", "empty-block", "status-line", "names"],
)
async def test_bytes_that_break_nats_py_arrive_and_stop_nobody(
    nats_server: NatsServer, poison: bytes
) -> None:
    taken, told = Taken(), Told()
    spec = listener(events=("user.>",))
    async with driver_of(nats_server.url, told) as driver, consuming(driver, taken, spec):
        await put_raw(nats_server.url, poison)

        poisoned = await taken.next()
        await poisoned.term("undecodable")
        await driver.publish(event("after"))

        assert await _acked(taken) == "id-after"
        assert poisoned.message.body == b"{}"
        assert len(told.signals) == len(told.of(TopologyChanged)) + 1


async def test_without_permission_to_pull_the_problem_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trouble_module, "TROUBLE", 0.5)
    config = """authorization { users = [
      { user: "admin", password: "x" },
      { user: "mailer", password: "x", permissions: {
        publish: { deny: ["$JS.API.CONSUMER.MSG.NEXT.>"] } } } ] }"""
    with NatsServer(config=config) as server:
        login = {"nats_user": "mailer", "nats_password": "x"}
        async with driver_of(server.url, **login) as driver, consuming(driver, Taken()):
            await eventually(lambda: _is_unready(driver))
            (problem,) = driver.status().problems
    assert (
        "doesn't let us publish to '$JS.API.CONSUMER.MSG.NEXT.EVENTS.mailer__welcome'" in problem
    )
