"""Settling on the real server: ack, nak, term, leases that ran out, and ack subjects."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from eventbus.delivery import Delivery
from eventbus.drivers.jetstream.message import AckSubjects, Place, place_of
from eventbus.embedded import NatsServer
from eventbus.errors import SettleError
from tests.integration.rig import Taken, consuming, driver_of, event, listener, pending, plain
from tests.waiting import eventually

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]


async def test_an_acknowledged_event_is_known_to_the_server_when_ack_returns(
    nats_server: NatsServer,
) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken):
        await driver.publish(event())
        delivery = await taken.next()
        before = await pending(nats_server)

        await delivery.ack()

        assert before == (0, 1)
        assert await pending(nats_server) == (0, 0)


@pytest.mark.parametrize("settle", ["ack", "nak", "term"])
async def test_each_way_to_settle_frees_the_slot(nats_server: NatsServer, settle: str) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken, listener(slots=1)):
        for number in range(3):
            await driver.publish(event(number))
        for sequence in (1, 2, 3):
            delivery = await taken.next()
            match settle:
                case "ack":
                    await delivery.ack()
                case "nak":
                    await delivery.nak(30)
                case _:
                    await delivery.term("no")
            assert delivery.sequence == sequence


async def test_a_nak_brings_it_back_after_its_delay_as_the_next_delivery(
    nats_server: NatsServer,
) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken):
        await driver.publish(event())
        first = await taken.next()
        started = time.monotonic()

        await first.nak(0.4)
        second = await taken.next()

        assert time.monotonic() - started > 0.35
        assert second.deliveries == 2
        await second.nak()
        third = await taken.next()
        assert third.deliveries == 3


async def test_a_terminated_event_never_comes_back_and_its_reason_is_told(
    nats_server: NatsServer,
) -> None:
    taken = Taken()
    subject = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.EVENTS.mailer__welcome"
    async with (
        driver_of(nats_server.url) as driver,
        consuming(driver, taken, listener(ack_wait=0.5)),
        plain(nats_server.url) as client,
    ):
        advisories = await client.subscribe(subject)
        await client.flush()
        await driver.publish(event())

        await (await taken.next()).term("invalid:\r\n no name")

        advisory = json.loads((await advisories.next_msg(timeout=5)).data)
        assert advisory["reason"] == "invalid: no name"
        assert await pending(nats_server) == (0, 0)


async def test_settling_twice_does_nothing_the_second_time(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken, listener(slots=1)):
        await driver.publish(event(1))
        await driver.publish(event(2))
        first = await taken.next()
        await first.ack()

        await first.nak()
        await first.term("again")
        await first.ack()
        await first.in_progress()

        second = await taken.next()
        assert second.sequence == 2
        assert await pending(nats_server) == (0, 1)
        await second.ack()


async def test_signs_of_life_keep_a_delivery_ours(nats_server: NatsServer) -> None:
    taken = Taken()
    spec = listener(ack_wait=2.0)
    async with driver_of(nats_server.url) as driver, consuming(driver, taken, spec):
        await driver.publish(event())
        delivery = await taken.next()
        for _ in range(6):
            await asyncio.sleep(0.4)  # the server's own clock runs here
            await delivery.in_progress()

        await delivery.ack()

        assert taken.waiting() == 0
        assert await pending(nats_server) == (0, 0)


async def _is_lost(delivery: Delivery) -> bool:
    return delivery.lost


@asynccontextmanager
async def outlived(server: NatsServer) -> AsyncIterator[tuple[Delivery, Delivery]]:
    """Give a delivery whose lease ran out, and that of the process that has the event now."""
    ours, theirs = Taken(), Taken()
    spec = listener(ack_wait=2.0, slots=1)
    async with (
        driver_of(server.url) as driver,
        driver_of(server.url) as other,
        consuming(driver, ours, spec),
    ):
        await driver.publish(event())
        first = await ours.next()
        async with consuming(other, theirs, spec):
            second = await theirs.next()
            await second.in_progress()
            # The server counts from a moment before that of our receipt.
            await eventually(partial(_is_lost, first))
            yield first, second
            await second.ack()
            assert await pending(server) == (0, 0)
            assert (ours.waiting(), theirs.waiting()) == (0, 0)


async def test_a_delivery_whose_lease_ran_out_cant_be_acknowledged(
    nats_server: NatsServer,
) -> None:
    async with outlived(nats_server) as (first, second):
        with pytest.raises(SettleError, match=r"isn't ours any more, after 2 s"):
            await first.ack()

        assert second.deliveries == 2
        assert await pending(nats_server) == (0, 1)


async def test_a_late_nak_starts_no_delivery_beside_the_newer_one(nats_server: NatsServer) -> None:
    async with outlived(nats_server) as (first, second):
        await first.nak()
        await second.in_progress()

        assert await pending(nats_server) == (0, 1)


async def test_a_late_term_leaves_the_newer_delivery_alone(nats_server: NatsServer) -> None:
    async with outlived(nats_server) as (first, _):
        await first.term("late")

        assert await pending(nats_server) == (0, 1)


async def test_the_same_message_in_hand_twice_is_settled_by_the_newer_one(
    nats_server: NatsServer,
) -> None:
    taken = Taken()
    spec = listener(ack_wait=30.0)
    async with driver_of(nats_server.url) as driver, consuming(driver, taken, spec):
        await driver.publish(event())
        first = await taken.next()
        async with plain(nats_server.url) as client:
            # What a server does that forgot, in a crash, that it had delivered it.
            await client.request("$JS.API.CONSUMER.RESET.EVENTS.mailer__welcome", b"")
        second = await taken.next()

        await first.nak()
        await second.in_progress()

        assert await pending(nats_server) == (0, 1)
        assert taken.waiting() == 0
        await second.ack()
        assert (first.sequence, second.sequence) == (1, 1)
        assert await pending(nats_server) == (0, 0)


async def test_an_ack_the_permissions_dont_cover_is_a_settle_error() -> None:
    config = """authorization { users = [ { user: "mailer", password: "x",
      permissions: { publish: { deny: ["$JS.ACK.>"] } } } ] }"""
    taken = Taken()
    with NatsServer(config=config) as server:
        login = {"nats_user": "mailer", "nats_password": "x"}
        async with driver_of(server.url, **login) as driver, consuming(driver, taken):
            await driver.publish(event())
            delivery = await taken.next()
            with pytest.raises(SettleError, match="doesn't let us publish to"):
                await delivery.ack()


def test_an_ack_subject_of_either_form_tells_the_place() -> None:
    expected = Place("EVENTS", "mailer__welcome", 2, 17, 9, 1795232829629313582)

    first = place_of("$JS.ACK.EVENTS.mailer__welcome.2.17.9.1795232829629313582.4")
    second = place_of("$JS.ACK._.szMpdrwD.EVENTS.mailer__welcome.2.17.9.1795232829629313582.4")
    third = place_of("$JS.ACK.hub.szMpdrwD.EVENTS.mailer__welcome.2.17.9.1795232829629313582.4.r")

    assert (first, second, third) == (expected, expected, expected)


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.EVENTS.mailer__welcome.2.17.9.1795232829629313582.4",
        "$JS.ACK._.szMpdrwD.EVENTS.mailer__welcome.2.17.9.1795232829629313582.4",
        "$JS.ACK.EVENTS.mailer__other.2.17.9.1795232829629313582.4",
        "$JS.ACK.EVENTS.mailer__welcome.x.17.9.1795232829629313582.4",
        "$JS.ACK.EVENTS.mailer__welcome.2.17.9.4",
        "",
    ],
)
def test_what_a_durable_reads_of_its_ack_subjects_is_what_they_say(reply: str) -> None:
    assert AckSubjects("EVENTS", "mailer__welcome").place(reply) == place_of(reply)


@pytest.mark.parametrize(
    "reply",
    ["", "_INBOX.x", "$JS.ACK.EVENTS", "$JS.ACK.EVENTS.d.x.1.1.1.0", "$JS.FC.EVENTS.d.1.2.3.4.5"],
)
def test_another_subject_tells_no_place(reply: str) -> None:
    assert place_of(reply) is None


async def test_the_second_form_of_ack_subjects_works_too() -> None:
    taken = Taken()
    with NatsServer(config="feature_flags { js_ack_fc_v2: true }") as server:
        async with driver_of(server.url) as driver, consuming(driver, taken):
            await driver.publish(event())
            delivery = await taken.next()
            await delivery.ack()

            assert delivery.sequence == 1
            assert await pending(server) == (0, 0)
