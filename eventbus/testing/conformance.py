"""The suite that every driver passes, within the features it declares.

::

    class TestSpoolDriver(DriverConformance):
        @pytest.fixture
        def place(self, tmp_path: Path) -> Place:
            return Place(lambda service: SpoolDriver(tmp_path))

It needs pytest and pytest-asyncio. A test of what the driver says it can't do is skipped, or checks
that asking for it is refused.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count

import pytest

from eventbus.attempts import History
from eventbus.clock import Clock, SystemClock
from eventbus.delivery import Delivery
from eventbus.drivers.base import Consumer, ConsumerSpec, Driver, Features, Start
from eventbus.envelope import Message
from eventbus.errors import PublishError, SequenceConflictError, SettleError, UnsupportedError
from eventbus.parked import ParkedKey
from eventbus.subject import Subjects

__all__ = ("Bench", "DriverConformance", "Inbox", "Place")

PATIENCE = 30.0
LEASE = 1.0
"""The ack wait of the suite's consumers, in seconds."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where drivers under test meet: those it makes see the same events."""

    make: Callable[[str], Driver]
    """Makes a driver for a service, not connected."""
    clock: Clock = field(default_factory=SystemClock)
    """What the drivers wait with."""
    advance: Callable[[float], Awaitable[None]] | None = None
    """Moves that clock by seconds; None where time passes by itself."""
    namespace: str = "events"


class Inbox:
    """Keeps what a consumer delivers."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self.deliveries.append(delivery)

    @property
    def bodies(self) -> list[bytes]:
        """What was delivered, in order."""
        return [one.message.body for one in self.deliveries]


class _Ordered(Inbox):
    """Takes the deliveries of an ordered consumer."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False

    def take(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self.deliveries.append(delivery)

    def halt(self) -> None:
        """Begin with nothing more."""
        self.is_open = False

    async def hand_back(self) -> None:
        """Give back nothing: nothing is halted here with something in hand."""

    def resume(self) -> None:
        """Go on."""
        self.is_open = True


class Bench:
    """What a test works with: drivers that are entered, messages, and the passing of time."""

    def __init__(self, place: Place, stack: AsyncExitStack) -> None:
        self._place = place
        self._stack = stack
        self._subjects = Subjects(place.namespace)
        self._numbers = count(1)
        self.group = asyncio.TaskGroup()

    async def driver(self, service: str = "app") -> Driver:
        """Return another driver of the place, entered."""
        return await self._stack.enter_async_context(self._place.make(service))

    def message(
        self, body: bytes = b"{}", *, name: str = "user.created", id: str | None = None
    ) -> Message:
        """Return a message that no other one is like."""
        id = id or f"id-{next(self._numbers)}"
        headers = {"ce-id": id, "ce-type": name, "ce-specversion": "1.0", "x-color": "blue"}
        return Message(self._subjects.event(name), headers, body, id)

    def spec(self, listener: str = "one", *events: str) -> ConsumerSpec:
        """Return what a listener needs."""
        return ConsumerSpec(
            durable=f"app__{listener}",
            service="app",
            listener=listener,
            events=events or ("user.created",),
            ack_wait=LEASE,
        )

    async def consume(self, driver: Driver, spec: ConsumerSpec) -> tuple[Inbox, Consumer]:
        """Provision and start a consumer that is stopped at the end."""
        inbox = Inbox()
        await driver.provision([spec])
        consumer = await driver.consume(spec, inbox)
        self._stack.push_async_callback(consumer.stop)
        return inbox, consumer

    async def acking(self, driver: Driver, spec: ConsumerSpec) -> Inbox:
        """Start a consumer whose deliveries are acknowledged at once."""
        inbox = Inbox()

        def deliver(delivery: Delivery) -> None:
            inbox(delivery)
            self.group.create_task(_acked(delivery))

        await driver.provision([spec])
        consumer = await driver.consume(spec, deliver)
        self._stack.push_async_callback(consumer.stop)
        return inbox

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait, and let time pass, until a condition holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await self.wait(0.05)

    async def wait(self, seconds: float) -> None:
        """Let time pass: that of the place's clock."""
        if self._place.advance is None:
            await asyncio.sleep(seconds)
        else:
            await self._place.advance(seconds)

    async def settled(self, inbox: Inbox, expected: list[bytes]) -> None:
        """Wait for deliveries, and a while longer for those that must not come."""
        await self.until(lambda: len(inbox.deliveries) >= len(expected))
        await self.wait(0.2)
        assert inbox.bodies == expected

    def later(self, seconds: float) -> timedelta:
        """Return a duration of the place's clock."""
        return timedelta(seconds=seconds)

    @property
    def clock(self) -> Clock:
        """What the drivers wait with."""
        return self._place.clock

    def holder(self, id: str) -> str:
        """Return where a delayed event waits."""
        return self._subjects.schedule("app", id)


async def _acked(delivery: Delivery) -> None:
    with suppress(SettleError):
        await delivery.ack()


def _need(has: bool, feature: str) -> None:
    if not has:
        pytest.skip(f"the driver has no {feature}")


@pytest.mark.asyncio
class DriverConformance:
    """Every test is one promise of `eventbus.drivers.base.Driver`; give the fixture `place`."""

    @pytest.fixture
    def place(self) -> Place:
        """Give the place; a subclass does."""
        raise NotImplementedError("override the fixture 'place'")

    @pytest.fixture
    async def bench(self, place: Place) -> AsyncIterator[Bench]:
        """Give a bench; its drivers are left, and its consumers stopped, when the test ends."""
        async with AsyncExitStack() as stack:
            bench = Bench(place, stack)
            async with bench.group:
                yield bench
                await stack.aclose()

    # For every driver ------------------------------------------------------------------------

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
                await driver.consume_in_order(bench.spec(), _Ordered())
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

    # For those that run listeners at once ----------------------------------------------------

    async def test_an_immediate_publish_waits_for_its_deliveries(self, bench: Bench) -> None:
        """A publish returns once its deliveries are settled, and raises where one gave up."""
        driver = await bench.driver()
        _need(driver.features.immediate, "immediate listeners")
        inbox, _ = await bench.consume(driver, bench.spec())

        publishing = bench.group.create_task(driver.publish(bench.message()))
        await bench.until(lambda: inbox.deliveries)
        assert not publishing.done()
        await inbox.deliveries[0].ack()
        await publishing

        refused = bench.group.create_task(_raised(driver.publish(bench.message())))
        await bench.until(lambda: len(inbox.deliveries) == 2)
        await inbox.deliveries[1].term("no")
        assert isinstance(await refused, PublishError)

    # For those that store --------------------------------------------------------------------

    async def test_a_receipt_names_the_place_of_the_event(self, bench: Bench) -> None:
        """Sequences rise, and what a receipt speaks of can be read."""
        driver = await _storing(bench)
        one = await driver.publish(bench.message(b"1"))
        two = await driver.publish(bench.message(b"2"))

        assert one.stream == two.stream != ""
        assert one.sequence < two.sequence
        stored = await driver.stored(one)
        assert stored is not None
        assert stored.body == b"1"

    async def test_an_id_is_stored_once(self, bench: Bench) -> None:
        """A second publish under an id stores nothing and says so."""
        driver = await _storing(bench)
        inbox = await bench.acking(driver, bench.spec())

        one = await driver.publish(bench.message(b"1", id="same"))
        two = await driver.publish(bench.message(b"2", id="same"))

        assert not one.duplicate
        assert two.duplicate
        assert two.sequence == one.sequence
        await bench.settled(inbox, [b"1"])

    async def test_what_is_acknowledged_never_comes_again(self, bench: Bench) -> None:
        """Not even after the ack wait."""
        driver = await _storing(bench)
        inbox = await bench.acking(driver, bench.spec())

        await driver.publish(bench.message(b"1"))
        await bench.until(lambda: inbox.deliveries)
        await bench.wait(1.5 * LEASE)

        assert inbox.bodies == [b"1"]

    async def test_what_is_terminated_never_comes_again(self, bench: Bench) -> None:
        """Terminated, it is done with."""
        driver = await _storing(bench)
        inbox, _ = await bench.consume(driver, bench.spec())
        await driver.publish(bench.message(b"1"))
        await bench.until(lambda: inbox.deliveries)

        await inbox.deliveries[0].term("dead letter")
        await bench.wait(1.5 * LEASE)

        assert inbox.bodies == [b"1"]

    async def test_what_is_given_back_comes_again_at_once(self, bench: Bench) -> None:
        """And counts as another delivery."""
        driver = await _storing(bench)
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
        driver = await _storing(bench)
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
        driver = await _storing(bench)
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
        driver = await _storing(bench)
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
        one = await _storing(bench)
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
        driver = await _storing(bench)
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
        driver = await _storing(bench)
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
        driver = await _storing(bench)
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
        driver = await _storing(bench)
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
        driver = await _storing(bench)
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
        one, two = await _storing(bench), await bench.driver()
        history = History(failed=2, settled=3, started=1)

        await one.attempts.write("app__one.EVENTS.7", history)
        read = await two.attempts.read("app__one.EVENTS.7")
        await two.attempts.forget("app__one.EVENTS.7")

        assert read == history
        assert await one.attempts.read("app__one.EVENTS.7") == History()

    # For those that delay --------------------------------------------------------------------

    async def test_a_scheduled_event_comes_at_its_time(self, bench: Bench) -> None:
        """And not before."""
        driver = await _scheduling(bench)
        inbox = await bench.acking(driver, bench.spec())
        message = bench.message(b"1")

        at = bench.clock.now() + bench.later(1.5)
        await driver.schedule(message, at=at, holder=bench.holder("a"))
        await bench.until(lambda: inbox.deliveries)

        assert bench.clock.now() >= at - bench.later(0.05)
        assert inbox.bodies == [b"1"]

    async def test_scheduling_at_a_holder_again_replaces_what_waits(self, bench: Bench) -> None:
        """One message waits at a holder."""
        driver = await _scheduling(bench)
        inbox = await bench.acking(driver, bench.spec())

        for body in (b"1", b"2"):
            at = bench.clock.now() + bench.later(1.5)
            await driver.schedule(bench.message(body), at=at, holder=bench.holder("a"))

        await bench.settled(inbox, [b"2"])

    async def test_one_thing_waits_at_a_holder_and_says_what_it_is(self, bench: Bench) -> None:
        """A second one is refused, and what waits can be read and found."""
        driver = await _scheduling(bench)
        schedules, holder = driver.schedules, bench.holder("a")
        message = bench.message(b"1")
        at = await schedules.now() + bench.later(3600)

        receipt = await schedules.add(message, at=at, holder=holder)
        error = await _raised(schedules.add(bench.message(b"2"), at=at, holder=holder))
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
        driver = await _scheduling(bench)
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
        driver = await _scheduling(bench)
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
        _need(driver.features.delay, "delays")
        inbox = await bench.acking(driver, bench.spec())

        await driver.hold(bench.message(b"1"))

        await bench.settled(inbox, [b"1"])

    # For those that keep order ---------------------------------------------------------------

    async def test_one_process_works_an_ordered_durable_at_a_time(self, bench: Bench) -> None:
        """The next one goes on once all that is unsettled is in its hands."""
        driver = await bench.driver()
        _need(driver.features.ordered, "order by key")
        spec = replace(bench.spec(), ordered=True, ack_wait=PATIENCE)
        await driver.provision([spec])
        first, second = _Ordered(), _Ordered()
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
        _need(driver.features.ordered, "order by key")
        parked = ParkedKey("u-1", 3, 5, redriven=4)

        await driver.parked.write("app__one", parked)
        other = await bench.driver()

        assert await other.parked.keys("app__one") == {"u-1"}
        assert await other.parked.read("app__one", "u-1") == parked
        await other.parked.free("app__one", "u-1")
        assert await driver.parked.keys("app__one") == frozenset()


async def _storing(bench: Bench) -> Driver:
    driver = await bench.driver()
    _need(driver.features.stores, "memory of its events")
    return driver


async def _scheduling(bench: Bench) -> Driver:
    driver = await bench.driver()
    _need(driver.features.schedules, "schedules")
    return driver


async def _raised(publishing: Awaitable[object]) -> Exception | None:
    try:
        await publishing
    except Exception as exc:  # noqa: BLE001 - it is what the test looks at
        return exc
    return None
