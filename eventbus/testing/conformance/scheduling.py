"""What a driver does that delays: what waits comes at its time, and can be taken back."""

from eventbus.errors import SequenceConflictError
from eventbus.testing.conformance.bench import (
    Bench,
    need,
    raised,
    scheduling,
)

__all__ = ("Scheduling",)


class Scheduling:
    """Promises of a driver with `Features.schedules` or `Features.delay`."""

    async def test_a_scheduled_event_comes_at_its_time(self, bench: Bench) -> None:
        """And not before."""
        driver = await scheduling(bench)
        inbox = await bench.acking(driver, bench.spec())
        message = bench.message(b"1")

        at = bench.clock.now() + bench.later(1.5)
        await driver.schedule(message, at=at, holder=bench.holder("a"))
        await bench.until(lambda: inbox.deliveries)

        assert bench.clock.now() >= at - bench.later(0.05)
        assert inbox.bodies == [b"1"]

    async def test_scheduling_at_a_holder_again_replaces_what_waits(self, bench: Bench) -> None:
        """One message waits at a holder."""
        driver = await scheduling(bench)
        inbox = await bench.acking(driver, bench.spec())

        for body in (b"1", b"2"):
            at = bench.clock.now() + bench.later(1.5)
            await driver.schedule(bench.message(body), at=at, holder=bench.holder("a"))

        await bench.settled(inbox, [b"2"])

    async def test_one_thing_waits_at_a_holder_and_says_what_it_is(self, bench: Bench) -> None:
        """A second one is refused, and what waits can be read and found."""
        driver = await scheduling(bench)
        schedules, holder = driver.schedules, bench.holder("a")
        message = bench.message(b"1")
        at = await schedules.now() + bench.later(3600)

        receipt = await schedules.add(message, at=at, holder=holder)
        error = await raised(schedules.add(bench.message(b"2"), at=at, holder=holder))
        waiting = await schedules.read(holder)
        found = [one async for one in schedules.find(bench.holder("a"))]

        assert isinstance(error, SequenceConflictError)
        assert waiting is not None
        assert (waiting.holder, waiting.at, waiting.sequence) == (holder, at, receipt.sequence)
        assert (waiting.message.subject, waiting.message.body) == (message.subject, b"1")
        assert waiting.message.headers["x-color"] == "blue"
        assert not waiting.is_cancelled
        assert found == [waiting]
        assert await schedules.read(bench.holder("b")) is None

    async def test_what_is_cancelled_never_comes(self, bench: Bench) -> None:
        """Its mark says so; what has come is too late to cancel."""
        driver = await scheduling(bench)
        inbox = await bench.acking(driver, bench.spec())
        schedules, holder = driver.schedules, bench.holder("a")

        at = await schedules.now() + bench.later(1.5)
        await schedules.add(bench.message(b"1"), at=at, holder=holder)
        await schedules.add(bench.message(b"2"), at=at, holder=bench.holder("b"))
        waiting, late = await schedules.read(holder), await schedules.read(bench.holder("b"))
        assert waiting is not None
        assert late is not None
        cancelled = await schedules.cancel(waiting)
        mark = await schedules.read(holder)
        await bench.settled(inbox, [b"2"])

        assert cancelled
        assert mark is not None
        assert (mark.is_cancelled, mark.at) == (True, at)
        assert await schedules.cancel(mark)
        assert not await schedules.cancel(late)
        assert await schedules.read(bench.holder("b")) is None

    async def test_what_is_replaced_comes_at_its_new_time(self, bench: Bench) -> None:
        """In place of the one that waited, and not of one that was replaced already."""
        driver = await scheduling(bench)
        inbox = await bench.acking(driver, bench.spec())
        schedules, holder = driver.schedules, bench.holder("a")

        now = await schedules.now()
        await schedules.add(bench.message(b"1"), at=now + bench.later(3600), holder=holder)
        waiting = await schedules.read(holder)
        assert waiting is not None
        soon = now + bench.later(1)
        replaced = await schedules.replace(waiting, bench.message(b"2"), at=soon)
        again = await schedules.replace(waiting, bench.message(b"3"), at=soon)

        assert (replaced, again) == (True, False)
        await bench.settled(inbox, [b"2"])

    async def test_what_is_held_comes_once_there_is_room(self, bench: Bench) -> None:
        """Where there is room, that is now."""
        driver = await bench.driver()
        need(driver.features.delay, "delays")
        inbox = await bench.acking(driver, bench.spec())

        await driver.hold(bench.message(b"1"))

        await bench.settled(inbox, [b"1"])
