"""What every driver does: events reach the listeners that name them, and are settled once."""

from dataclasses import replace

import pytest

from eventbus.drivers.base import Features
from eventbus.errors import PublishError, UnsupportedError
from eventbus.testing.conformance.bench import (
    PATIENCE,
    Bench,
    OrderedInbox,
    need,
    raised,
)

__all__ = ("Carrying",)


class Carrying:
    """Promises of every driver; and of one that runs listeners at once."""

    async def test_it_is_ready_once_it_is_entered(self, bench: Bench) -> None:
        """Entered, it works and has a name and features."""
        driver = await bench.driver()

        assert driver.status().ready
        assert driver.name
        assert isinstance(driver.features, Features)

    async def test_a_message_arrives_as_it_was_published(self, bench: Bench) -> None:
        """Subject, headers and body are carried byte for byte."""
        driver = await bench.driver()
        inbox = await bench.acking(driver, bench.spec())
        message = bench.message('{"name": "Zoë"}'.encode())

        receipt = await driver.publish(message)
        await bench.until(lambda: inbox.deliveries)

        (delivery,) = inbox.deliveries
        assert delivery.message.subject == message.subject
        assert delivery.message.body == message.body
        headers = delivery.message.headers
        assert {name: headers[name] for name in message.headers} == message.headers
        assert delivery.deliveries == 1
        assert not delivery.lost
        assert receipt.id == message.id
        assert receipt.driver == driver.name

    async def test_every_listener_gets_every_event_that_it_names(self, bench: Bench) -> None:
        """Names and patterns decide what a listener gets."""
        driver = await bench.driver()
        users = await bench.acking(driver, bench.spec("users", "user.*"))
        mails = await bench.acking(driver, bench.spec("mails", "mail.sent", "user.created"))
        deep = await bench.acking(driver, bench.spec("deep", "shop.>"))

        for body, name in (
            (b"1", "user.created"),
            (b"2", "mail.sent"),
            (b"3", "user.deleted"),
            (b"4", "shop.order.item.added"),
        ):
            await driver.publish(bench.message(body, name=name))

        await bench.until(lambda: len(users.bodies + mails.bodies + deep.bodies) >= 5)
        assert sorted(users.bodies) == [b"1", b"3"]
        assert sorted(mails.bodies) == [b"1", b"2"]
        assert deep.bodies == [b"4"]

    async def test_a_delivery_is_settled_once(self, bench: Bench) -> None:
        """What is settled may be settled again: it does nothing."""
        driver = await bench.driver()
        inbox, _ = await bench.consume(driver, bench.spec())
        publishing = bench.group.create_task(driver.publish(bench.message()))
        await bench.until(lambda: inbox.deliveries)
        (delivery,) = inbox.deliveries

        await delivery.ack()
        await delivery.ack()
        await delivery.nak()
        await delivery.term("no")
        await publishing
        await bench.wait(0.2)

        assert len(inbox.deliveries) == 1

    async def test_no_more_than_the_slots_are_in_hand(self, bench: Bench) -> None:
        """A slot is taken until its delivery is settled."""
        driver = await bench.driver()
        spec = replace(bench.spec(), slots=2, ack_wait=PATIENCE)
        inbox, _ = await bench.consume(driver, spec)
        for _ in range(3):
            bench.group.create_task(driver.publish(bench.message()))
        await bench.until(lambda: len(inbox.deliveries) >= 2)
        await bench.wait(0.2)
        assert len(inbox.deliveries) == 2

        await inbox.deliveries[0].ack()
        await bench.until(lambda: len(inbox.deliveries) == 3)
        for one in inbox.deliveries:
            await one.ack()

    async def test_what_it_cannot_do_it_refuses(self, bench: Bench) -> None:
        """Asking for a feature that it lacks raises UnsupportedError."""
        driver = await bench.driver()
        if not driver.features.ordered:
            with pytest.raises(UnsupportedError):
                await driver.consume_in_order(bench.spec(), OrderedInbox())
        if not driver.features.schedules:
            with pytest.raises(UnsupportedError):
                _ = driver.schedules
        if not driver.features.delay:
            with pytest.raises(UnsupportedError):
                await driver.hold(bench.message())

    async def test_limits_are_kept_by_compare_and_set(self, bench: Bench) -> None:
        """A record is changed only over the revision that was read."""
        limits = (await bench.driver()).limits

        first = await limits.write("app__one.limit.a", b"1", over=0, keep=60)
        assert first is not None
        assert await limits.write("app__one.limit.a", b"2", over=0, keep=60) is None
        second = await limits.write("app__one.limit.a", b"3", over=first, keep=60)
        assert second is not None
        read = await limits.read("app__one.limit.a")
        assert read is not None
        assert (read.body, read.revision) == (b"3", second)

    async def test_an_immediate_publish_waits_for_its_deliveries(self, bench: Bench) -> None:
        """A publish returns once its deliveries are settled, and raises where one gave up."""
        driver = await bench.driver()
        need(driver.features.immediate, "immediate listeners")
        inbox, _ = await bench.consume(driver, bench.spec())

        publishing = bench.group.create_task(driver.publish(bench.message()))
        await bench.until(lambda: inbox.deliveries)
        assert not publishing.done()
        await inbox.deliveries[0].ack()
        await publishing

        refused = bench.group.create_task(raised(driver.publish(bench.message())))
        await bench.until(lambda: len(inbox.deliveries) == 2)
        await inbox.deliveries[1].term("no")
        assert isinstance(await refused, PublishError)
