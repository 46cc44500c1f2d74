"""What a driver does that keeps order: one process works a durable, and hands it over."""

from dataclasses import replace

from eventbus.parked import ParkedKey
from eventbus.testing.conformance.bench import (
    PATIENCE,
    Bench,
    OrderedInbox,
    need,
)

__all__ = ("Ordering",)


class Ordering:
    """Promises of a driver with `Features.ordered`."""

    async def test_one_process_works_an_ordered_durable_at_a_time(self, bench: Bench) -> None:
        """The next one goes on once all that is unsettled is in its hands."""
        driver = await bench.driver()
        need(driver.features.ordered, "order by key")
        spec = replace(bench.spec(), ordered=True, ack_wait=PATIENCE)
        await driver.provision([spec])
        first, second = OrderedInbox(), OrderedInbox()
        active = await driver.consume_in_order(spec, first)
        other = await bench.driver()
        standby = await other.consume_in_order(spec, second)

        for body in (b"1", b"2"):
            await driver.publish(bench.message(body))
        await bench.until(lambda: len(first.bodies) + len(second.bodies) == 2)
        holder, waiting = (first, second) if first.deliveries else (second, first)
        assert holder.bodies == [b"1", b"2"]
        await bench.until(lambda: holder.is_open)
        assert not waiting.is_open

        await (active if holder is first else standby).stop()
        await holder.deliveries[0].ack()
        await holder.deliveries[1].nak()
        await bench.until(lambda: waiting.is_open and waiting.deliveries)
        assert waiting.bodies == [b"2"]
        await waiting.deliveries[0].ack()
        await (standby if holder is first else active).stop()

    async def test_parked_keys_are_kept_until_they_are_freed(self, bench: Bench) -> None:
        """Where each driver of the place sees them."""
        driver = await bench.driver()
        need(driver.features.ordered, "order by key")
        parked = ParkedKey("u-1", 3, 5, redriven=4)

        await driver.parked.write("app__one", parked)
        other = await bench.driver()

        assert await other.parked.keys("app__one") == {"u-1"}
        assert await other.parked.read("app__one", "u-1") == parked
        await other.parked.free("app__one", "u-1")
        assert await driver.parked.keys("app__one") == frozenset()
