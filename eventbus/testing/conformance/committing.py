"""What a driver does that is atomic: a mark and messages are stored together, or none of them."""

from eventbus.drivers.atomic import Mark
from eventbus.errors import IdConflictError, PayloadTooLargeError, SequenceConflictError
from eventbus.testing.conformance.bench import Bench, committing, raised

__all__ = ("Committing",)


class Committing:
    """Promises of a driver with `Features.atomic`."""

    async def test_a_mark_and_messages_are_stored_together(self, bench: Bench) -> None:
        """In their order; the mark can be read, and is no event."""
        driver = await committing(bench)
        inbox = await bench.acking(driver, bench.spec("one", ">"))
        mark = Mark(bench.mark("a"), "run-1")

        receipts = await driver.commit(mark, [bench.message(b"1"), bench.message(b"2")])
        found = await driver.marked(mark.subject)

        await bench.settled(inbox, [b"1", b"2"])
        assert [one.duplicate for one in receipts] == [False, False]
        assert [one.sequence for one in receipts] == [
            delivery.sequence for delivery in inbox.deliveries
        ]
        assert found is not None
        assert (found.subject, found.run) == (mark.subject, "run-1")
        assert await driver.marked(bench.mark("b")) is None

    async def test_where_another_run_has_left_its_mark_nothing_is_stored(
        self, bench: Bench
    ) -> None:
        """Unless the mark goes over that one."""
        driver = await committing(bench)
        inbox = await bench.acking(driver, bench.spec())
        place = bench.mark("a")

        await driver.commit(Mark(place, "run-1"), [bench.message(b"1")])
        error = await raised(driver.commit(Mark(place, "run-2"), [bench.message(b"2")]))
        alone = await raised(driver.commit(Mark(place, "run-2"), []))
        found = await driver.marked(place)
        assert found is not None
        await driver.commit(Mark(place, "run-3", found.sequence), [bench.message(b"3")])

        await bench.settled(inbox, [b"1", b"3"])
        assert isinstance(error, SequenceConflictError)
        assert isinstance(alone, SequenceConflictError)

    async def test_one_that_cant_be_stored_keeps_the_others_out(self, bench: Bench) -> None:
        """And the mark too, so that it can be tried again."""
        driver = await committing(bench)
        inbox = await bench.acking(driver, bench.spec())
        place = bench.mark("a")
        await driver.publish(bench.message(b"0", id="taken"))

        large = [bench.message(b"1"), bench.message(b"x" * 10_000_000)]
        too_large = await raised(driver.commit(Mark(place, "run-1"), large))
        other = [bench.message(b"2"), bench.message(b"another one", id="taken")]
        conflict = await raised(driver.commit(Mark(place, "run-2"), other))
        same = [bench.message(b"0", id="taken"), bench.message(b"3")]
        receipts = await driver.commit(Mark(place, "run-3"), same)

        await bench.settled(inbox, [b"0", b"3"])
        assert isinstance(too_large, PayloadTooLargeError)
        assert isinstance(conflict, IdConflictError)
        assert [one.duplicate for one in receipts] == [True, False]
