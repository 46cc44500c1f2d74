"""What a driver does that stores: deliveries come again, and durables keep their place."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from eventbus.attempts import History
from eventbus.errors import SettleError
from eventbus.testing.conformance.bench import (
    LEASE,
    PATIENCE,
    Bench,
    storing,
)

if TYPE_CHECKING:
    from eventbus.drivers.base import Start

__all__ = ("Storing",)


class Storing:
    """Promises of a driver with `Features.stores`."""

    async def test_a_receipt_names_the_place_of_the_event(self, bench: Bench) -> None:
        """Sequences rise, and what a receipt speaks of can be read."""
        driver = await storing(bench)
        one = await driver.publish(bench.message(b"1"))
        two = await driver.publish(bench.message(b"2"))

        assert one.stream == two.stream != ""
        assert one.sequence < two.sequence
        stored = await driver.stored(one)
        assert stored is not None
        assert stored.body == b"1"

    async def test_an_id_is_stored_once(self, bench: Bench) -> None:
        """A second publish under an id stores nothing and says so."""
        driver = await storing(bench)
        inbox = await bench.acking(driver, bench.spec())

        one = await driver.publish(bench.message(b"1", id="same"))
        two = await driver.publish(bench.message(b"2", id="same"))

        assert not one.duplicate
        assert two.duplicate
        assert two.sequence == one.sequence
        await bench.settled(inbox, [b"1"])

    async def test_what_is_acknowledged_never_comes_again(self, bench: Bench) -> None:
        """Not even after the ack wait."""
        driver = await storing(bench)
        inbox = await bench.acking(driver, bench.spec())

        await driver.publish(bench.message(b"1"))
        await bench.until(lambda: inbox.deliveries)
        await bench.wait(1.5 * LEASE)

        assert inbox.bodies == [b"1"]

    async def test_what_is_terminated_never_comes_again(self, bench: Bench) -> None:
        """Terminated, it is done with."""
        driver = await storing(bench)
        inbox, _ = await bench.consume(driver, bench.spec())
        await driver.publish(bench.message(b"1"))
        await bench.until(lambda: inbox.deliveries)

        await inbox.deliveries[0].term("dead letter")
        await bench.wait(1.5 * LEASE)

        assert inbox.bodies == [b"1"]

    async def test_what_is_given_back_comes_again_at_once(self, bench: Bench) -> None:
        """And counts as another delivery."""
        driver = await storing(bench)
        inbox, _ = await bench.consume(driver, replace(bench.spec(), ack_wait=PATIENCE))
        receipt = await driver.publish(bench.message(b"1"))
        await bench.until(lambda: inbox.deliveries)

        await inbox.deliveries[0].nak()
        await bench.until(lambda: len(inbox.deliveries) == 2)

        again = inbox.deliveries[1]
        assert (again.sequence, again.deliveries) == (receipt.sequence, 2)
        await again.ack()

    async def test_what_is_given_back_with_a_delay_comes_after_it(self, bench: Bench) -> None:
        """The delay is the driver's work; no slot is taken meanwhile."""
        driver = await storing(bench)
        spec = replace(bench.spec(), ack_wait=PATIENCE, slots=1)
        inbox, _ = await bench.consume(driver, spec)
        await driver.publish(bench.message(b"1"))
        await bench.until(lambda: inbox.deliveries)
        given_back = bench.clock.monotonic()

        await inbox.deliveries[0].nak(1.0)
        await driver.publish(bench.message(b"2"))
        await bench.until(lambda: len(inbox.deliveries) == 2)
        await inbox.deliveries[1].ack()
        await bench.until(lambda: len(inbox.deliveries) == 3)

        assert inbox.bodies == [b"1", b"2", b"1"]
        assert bench.clock.monotonic() - given_back >= 0.9
        await inbox.deliveries[2].ack()

    async def test_a_lease_without_a_sign_of_life_ends(self, bench: Bench) -> None:
        """The event comes again, and the one that lost it can't settle it."""
        driver = await storing(bench)
        inbox, _ = await bench.consume(driver, bench.spec())
        await driver.publish(bench.message(b"1"))
        await bench.until(lambda: len(inbox.deliveries) == 2)

        late, again = inbox.deliveries
        assert late.lost
        assert (again.deliveries, again.lost) == (2, False)
        with pytest.raises(SettleError):
            await late.ack()
        await again.ack()

    async def test_a_sign_of_life_keeps_the_lease(self, bench: Bench) -> None:
        """As long as it is given in time."""
        driver = await storing(bench)
        inbox, _ = await bench.consume(driver, bench.spec())
        await driver.publish(bench.message(b"1"))
        await bench.until(lambda: inbox.deliveries)

        for _ in range(8):
            await bench.wait(LEASE / 4)
            await inbox.deliveries[0].in_progress()
        await inbox.deliveries[0].ack()

        assert inbox.bodies == [b"1"]

    async def test_consumers_of_one_durable_share_its_events(self, bench: Bench) -> None:
        """Each event is handed to one of them."""
        one = await storing(bench)
        two = await bench.driver()
        spec = replace(bench.spec(), ack_wait=PATIENCE, slots=2)
        first, _ = await bench.consume(one, spec)
        second, _ = await bench.consume(two, spec)

        for number in range(4):
            await one.publish(bench.message(str(number).encode()))
        await bench.until(lambda: len(first.bodies) + len(second.bodies) == 4)

        assert sorted(first.bodies + second.bodies) == [b"0", b"1", b"2", b"3"]
        assert len(first.bodies) == len(second.bodies) == 2
        for one_delivery in (*first.deliveries, *second.deliveries):
            await one_delivery.ack()

    async def test_a_durable_keeps_its_place_while_nobody_works_it(self, bench: Bench) -> None:
        """What came meanwhile is delivered, and nothing that was handled."""
        driver = await storing(bench)
        spec = bench.spec()
        inbox, consumer = await bench.consume(driver, spec)
        await driver.publish(bench.message(b"1"))
        await bench.until(lambda: inbox.deliveries)
        await inbox.deliveries[0].ack()
        await consumer.stop()

        await driver.publish(bench.message(b"2"))
        again = await bench.acking(driver, spec)

        await bench.settled(again, [b"2"])
        assert inbox.bodies == [b"1"]

    async def test_a_new_durable_starts_where_it_says(self, bench: Bench) -> None:
        """With new events, all, from a sequence, or from a time."""
        driver = await storing(bench)
        receipts = [await driver.publish(bench.message(str(one).encode())) for one in range(3)]
        await bench.wait(0.2)
        now = bench.clock.now()
        await bench.wait(0.2)
        await driver.publish(bench.message(b"3"))

        starts: dict[str, Start] = {
            "new": "new",
            "all": "all",
            "third": receipts[2].sequence,
            "time": now,
        }
        inboxes = {
            name: await bench.acking(driver, replace(bench.spec(name), start=start))
            for name, start in starts.items()
        }
        await driver.publish(bench.message(b"4"))

        await bench.settled(inboxes["new"], [b"4"])
        await bench.settled(inboxes["all"], [b"0", b"1", b"2", b"3", b"4"])
        await bench.settled(inboxes["third"], [b"2", b"3", b"4"])
        await bench.settled(inboxes["time"], [b"3", b"4"])

    async def test_a_limit_of_none_lets_nothing_through(self, bench: Bench) -> None:
        """Until it is raised again."""
        driver = await storing(bench)
        inbox, consumer = await bench.consume(driver, replace(bench.spec(), ack_wait=PATIENCE))
        consumer.limit(0)
        await bench.wait(0.3)
        await driver.publish(bench.message(b"1"))
        await bench.wait(0.3)
        before = len(inbox.deliveries)
        consumer.limit(4)
        await bench.until(lambda: inbox.deliveries)

        assert before == 0
        await inbox.deliveries[0].ack()

    async def test_it_says_how_far_a_durable_is(self, bench: Bench) -> None:
        """How many are pending and how many unsettled; nothing of one that isn't there."""
        driver = await storing(bench)
        spec = replace(bench.spec(), slots=1, ack_wait=PATIENCE)
        inbox, _ = await bench.consume(driver, spec)
        for _ in range(3):
            await driver.publish(bench.message())
        await bench.until(lambda: inbox.deliveries)
        await bench.wait(0.2)

        state = await driver.measure(spec.durable)

        assert state is not None
        assert (state.unsettled, state.pending, state.unread) == (1, 2, 3)
        assert await driver.measure("app__nobody") is None
        await inbox.deliveries[0].ack()

    async def test_a_durable_that_is_removed_is_gone(self, bench: Bench) -> None:
        """It holds nothing, and one that is made again starts anew."""
        driver = await storing(bench)
        spec = bench.spec()
        _, consumer = await bench.consume(driver, spec)
        await consumer.stop()

        await driver.remove(spec)
        await driver.publish(bench.message(b"1"))

        assert await driver.measure(spec.durable) is None
        again = await bench.acking(driver, spec)
        await driver.publish(bench.message(b"2"))
        await bench.settled(again, [b"2"])

    async def test_attempts_are_kept_until_they_are_forgotten(self, bench: Bench) -> None:
        """Where each driver of the place sees them."""
        one, two = await storing(bench), await bench.driver()
        history = History(failed=2, settled=3, started=1)

        await one.attempts.write("app__one.EVENTS.7", history)
        read = await two.attempts.read("app__one.EVENTS.7")
        await two.attempts.forget("app__one.EVENTS.7")

        assert read == history
        assert await one.attempts.read("app__one.EVENTS.7") == History()
