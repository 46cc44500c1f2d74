"""Services on the memory driver, with a clock that a test moves."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

import pytest

from eventbus import (
    Context,
    Event,
    EventService,
    Reject,
    Retry,
    RetryLater,
    Settings,
)
from eventbus.drivers.memory import MemoryBroker, MemoryDriver, Sizes
from eventbus.errors import BackpressureError, IdConflictError
from eventbus.telemetry.signals import Observer
from eventbus.testing.clock import VirtualClock

SETTINGS = Settings()


class UserCreated(Event, name="user.created", key="user_id"):
    user_id: str
    padding: str = ""


class MailSent(Event, name="mail.sent"):
    to: str


class Bench:
    """Services that share one broker and one clock."""

    def __init__(self, sizes: Sizes | None = None) -> None:
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self.clock, sizes=sizes)

    def service(
        self, name: str = "app", observers: Iterable[Observer] = (), settings: Settings = SETTINGS
    ) -> EventService:
        return EventService(
            name,
            settings=settings,
            driver=MemoryDriver(self.broker),
            clock=self.clock,
            observers=observers,
        )

    def at(self) -> float:
        return self.clock.monotonic()


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_services_of_one_broker_hear_each_other(bench: Bench) -> None:
    heard: list[str] = []
    users, mails = bench.service("users"), bench.service("mails")

    @mails.subscribe(UserCreated)
    async def welcome(event: UserCreated, context: Context) -> None:
        heard.append(f"{event.user_id} from {context.source}")

    async with users, mails:
        receipt = await users.emit(UserCreated(user_id="u-1"))
        await bench.clock.settle()

    assert heard == ["u-1 from users"]
    assert (receipt.stream, receipt.sequence, receipt.driver) == ("EVENTS", 1, "memory")


async def test_a_failed_event_comes_again_after_its_delay_and_ends_as_a_dead_letter(
    bench: Bench,
) -> None:
    runs: list[tuple[float, int]] = []
    events = bench.service()

    @events.subscribe(UserCreated, retry=Retry(attempts=4, delays=(5, 20, 600)))
    async def fail(event: UserCreated, context: Context) -> None:
        runs.append((bench.at(), context.attempt))
        raise LookupError("no such user")

    async with events:
        await events.emit(UserCreated(user_id="u-1"))
        await bench.clock.advance(minutes=30)

    # The last retry was parked: it waited as a schedule, and not in the consumer's hands.
    assert runs == [(0.0, 1), (5.0, 2), (25.0, 3), (625.0, 4)]
    (letter,) = bench.broker.dead_letters()
    assert letter.subject == "events-dlq.app.fail.user.created"
    assert letter.headers["eventbus-dead-attempts"] == "4"
    assert letter.headers["eventbus-dead-error-message"] == "no%20such%20user"


async def test_signals_decide_as_on_the_server(bench: Bench) -> None:
    runs: list[float] = []
    events = bench.service()

    @events.subscribe(UserCreated)
    async def wait(event: UserCreated, context: Context) -> None:
        runs.append(bench.at())
        if context.attempt == 1:
            raise RetryLater("10m")
        raise Reject("not ours")

    async with events:
        await events.emit(UserCreated(user_id="u-1"))
        await bench.clock.advance(hours=1)

    assert runs == [0.0, 600.0]
    (letter,) = bench.broker.dead_letters()
    assert letter.headers["eventbus-dead-reason"] == "rejected"


async def test_what_a_stopped_service_held_is_handled_by_the_next_one(bench: Bench) -> None:
    runs: list[tuple[str, int]] = []

    def mailer(name: str) -> EventService:
        events = bench.service("mails")

        @events.subscribe(UserCreated)
        async def welcome(event: UserCreated, context: Context) -> None:
            runs.append((name, context.attempt))
            if name == "first":
                await asyncio.Event().wait()

        return events

    users, first = bench.service("users"), mailer("first")
    async with users:
        await first.start()
        await users.emit(UserCreated(user_id="u-1"))
        await bench.clock.settle()
        await first.stop(grace=0)
        async with mailer("second"):
            await bench.clock.settle()

    assert runs == [("first", 1), ("second", 1)]


async def test_an_id_is_known_for_the_duplicate_window(bench: Bench) -> None:
    events = bench.service()

    async with events:
        one = await events.emit(UserCreated(user_id="u-1"), id="first")
        two = await events.emit(UserCreated(user_id="u-1"), id="first")
        with pytest.raises(IdConflictError):
            await events.emit(UserCreated(user_id="u-2"), id="first")
        await bench.clock.advance(minutes=10)
        three = await events.emit(UserCreated(user_id="u-1"), id="first")

    assert [one.duplicate, two.duplicate, three.duplicate] == [False, True, False]
    assert [one.sequence, two.sequence, three.sequence] == [1, 1, 2]


async def test_a_full_stream_refuses_and_a_listener_s_emit_waits_for_room() -> None:
    bench = Bench(Sizes(max_bytes=4096))
    gate = asyncio.Event()
    mails: list[str] = []
    events = bench.service()

    @events.subscribe(UserCreated)
    async def welcome(event: UserCreated) -> None:
        await gate.wait()
        await events.emit(MailSent(to=event.user_id))

    @events.subscribe(MailSent)
    async def note(event: MailSent) -> None:
        mails.append(event.to)

    async with events:
        await events.emit(UserCreated(user_id="u-1", padding="x" * 3450))
        with pytest.raises(BackpressureError) as refused:
            await events.emit(UserCreated(user_id="u-2", padding="x" * 3450))
        gate.set()
        await bench.clock.settle()
        assert mails == []
        await bench.clock.advance(minutes=30)

    assert refused.value.held_by == ("app__welcome",)
    assert mails == ["u-1"]


async def test_an_ordered_listener_keeps_the_order_of_a_key_through_a_retry(bench: Bench) -> None:
    handled: list[tuple[float, str]] = []
    events = bench.service()

    @events.subscribe(UserCreated, ordered=True, retry=Retry(delays=(60,)))
    async def follow(event: UserCreated, context: Context) -> None:
        if event.padding == "1" and context.attempt == 1:
            raise LookupError
        handled.append((bench.at(), f"{event.user_id}:{event.padding}"))

    async with events:
        for padding in ("1", "2"):
            await events.emit(UserCreated(user_id="a", padding=padding))
            await events.emit(UserCreated(user_id="b", padding=f"{padding}x"))
        await bench.clock.advance(minutes=5)

    assert handled == [(0.0, "b:1x"), (0.0, "b:2x"), (60.0, "a:1"), (60.0, "a:2")]


async def test_another_process_takes_an_ordered_durable_over_in_order(bench: Bench) -> None:
    handled: list[str] = []
    gate = asyncio.Event()

    def follower(name: str) -> EventService:
        events = bench.service("app")

        @events.subscribe(UserCreated, ordered=True, concurrency=1)
        async def follow(event: UserCreated) -> None:
            if event.padding == "1":
                await gate.wait()
            handled.append(f"{name}:{event.padding}")

        return events

    one, two = follower("one"), follower("two")
    async with one, two:
        for padding in ("1", "2", "3"):
            await one.emit(UserCreated(user_id="a", padding=padding))
        await bench.clock.settle()
        async with asyncio.TaskGroup() as group:
            group.create_task(one.stop())
            await bench.clock.settle()
            assert handled == []
            gate.set()
        await bench.clock.settle()

    assert handled == ["one:1", "two:2", "two:3"]


async def test_a_lease_that_is_not_kept_ends(bench: Bench) -> None:
    runs: list[float] = []
    events = bench.service()

    @events.subscribe(UserCreated)
    async def welcome(event: UserCreated) -> None:
        runs.append(bench.at())
        # Longer than ack_wait, but heartbeats keep it.
        await bench.clock.sleep(90)

    async with events:
        await events.emit(UserCreated(user_id="u-1"))
        await bench.clock.advance(minutes=10)

    assert runs == [0.0]


async def test_a_durable_that_nobody_declares_any_more_is_told(bench: Bench) -> None:
    told: list[object] = []

    async def old(event: UserCreated) -> None: ...

    async def new(event: UserCreated) -> None: ...

    before = bench.service()
    before.subscribe(UserCreated, old)
    async with before:
        pass
    after = bench.service(observers=[told.append])
    after.subscribe(UserCreated, new)
    async with after:
        pass

    changes = [str(one) for one in told if type(one).__name__ == "TopologyChanged"]
    assert [one for one in changes if "app__old" in one and "nobody declares it" in one]


async def test_time_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock()
    start = clock.now()
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(clock.monotonic())

    async with asyncio.TaskGroup() as group:
        for seconds in (30, 10, 20):
            group.create_task(sleeper(seconds))
        await clock.advance(20)
        assert woken == [10.0, 20.0]
        await clock.advance(minutes=1)

    assert woken == [10.0, 20.0, 30.0]
    assert clock.now() - start == timedelta(seconds=80)


async def test_services_whose_environment_says_memory_share_a_broker() -> None:
    clock = VirtualClock()
    heard: list[str] = []
    settings = Settings(driver="memory")
    users = EventService("users", settings=settings, clock=clock)
    mails = EventService("mails", settings=settings, clock=clock)

    @mails.subscribe(UserCreated)
    async def welcome(event: UserCreated) -> None:
        heard.append(event.user_id)

    async with users, mails:
        await users.emit(UserCreated(user_id="u-1"))
        await clock.settle()

    assert heard == ["u-1"]
