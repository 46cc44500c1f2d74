"""Limits of listeners: what they let run, what they send back, and what they cost."""

import asyncio
from typing import Any

import pytest

from eventbus.declaration import subscription
from eventbus.delivery import Outcome
from eventbus.errors import DeclarationError, DriverError
from eventbus.event import Event, UnknownEvent
from eventbus.limits import LimitRecord, Limits, LocalLimits
from eventbus.middleware.base import Context
from eventbus.middleware.breaker import Breaker
from eventbus.middleware.limit import Layer, Limit, key_by
from eventbus.middleware.named import middleware_named
from eventbus.middleware.overlap import LEASE, WithoutOverlapping
from eventbus.middleware.throttle import PARTS, Counts, Throttle, place_in
from eventbus.middleware.unique import Unique
from eventbus.telemetry.signals import Returned, Settled
from tests.unit.bench import Bench, UserCreated, arriving
from tests.unit.conftest import RecordingDriver, StillClock


@pytest.fixture
def bench(driver: RecordingDriver, clock: StillClock) -> Bench:
    driver.limits = LocalLimits(clock)
    return Bench(driver, clock)


async def nothing(event: UserCreated) -> None: ...


def user(number: int | str, **headers: str) -> Any:
    return arriving(UserCreated(user_id=f"u-{number}"), **headers)


async def handle(bench: Bench, number: int | str, *layers: Layer, **headers: str) -> str:
    """Dispatch the event of a user and return what became of the delivery."""
    delivery = bench.delivery(user(number, **headers))
    bench.driver.journal.clear()
    await bench.dispatcher(nothing, middleware=layers)(delivery)
    return bench.driver.journal[-1]


# Throttle --------------------------------------------------------------------------------------


def test_a_throttle_never_lets_more_begin_within_any_span() -> None:
    counts: Counts = {}
    began: list[float] = []
    now = 1_000_000.37
    while len(began) < 60:
        wait = place_in(counts, now, count=7, span=2.0)
        if not wait:
            began.append(now)
        now += min(wait or 0.013, 0.05)

    crowded = [at for at in began if sum(at <= one < at + 2.0 for one in began) > 7]
    assert crowded == []
    # Nothing is wasted beyond a part of the span for each round, and the steps of this test.
    assert began[-1] - began[0] <= 8 * 2.0 * (1 + 2 / PARTS) + 8 * 0.1


async def test_what_is_too_much_goes_back_without_an_attempt(bench: Bench) -> None:
    throttle = Throttle("2/10s")
    ends = [await handle(bench, number, throttle) for number in range(3)]
    history = next(iter(bench.driver.attempts.histories.values()))

    assert ends[:2] == ["ack", "ack"]
    assert ends[2].startswith("nak 1")
    assert (history.failed, history.settled) == (0, 1)


async def test_a_place_is_free_again_after_the_span(bench: Bench, clock: StillClock) -> None:
    throttle = Throttle("1/10s")
    await handle(bench, 1, throttle)
    assert (await handle(bench, 2, throttle)).startswith("nak")

    clock.move(11)

    assert await handle(bench, 2, throttle) == "ack"


async def test_a_throttle_by_field_counts_each_value_alone(bench: Bench) -> None:
    throttle = Throttle("1/10s", by="user_id")

    ends = [await handle(bench, number, throttle) for number in (1, 2, 1)]

    assert [one[:3] for one in ends] == ["ack", "ack", "nak"]


async def test_a_long_wait_holds_no_pending_place(bench: Bench) -> None:
    throttle = Throttle("1/1h")
    await handle(bench, 1, throttle)

    assert await handle(bench, 2, throttle) == "ack"
    message, _, _ = bench.driver.scheduled[0]
    assert message.headers["Eventbus-Attempt"] == "0"


async def test_a_throttle_for_all_events_pauses_the_listener(bench: Bench) -> None:
    dispatcher = bench.dispatcher(nothing, middleware=["throttle:1,1"])
    pauses: list[float] = []
    dispatcher.on_pause(pauses.append)
    for number in (1, 2):
        await dispatcher(bench.delivery(user(number)))

    (pause,) = pauses
    assert 55 < pause < 70


async def test_a_limit_that_cannot_be_asked_uses_up_no_attempt(bench: Bench) -> None:
    bench.driver.limits = Unreachable()
    for layer in (Throttle("9/s"), WithoutOverlapping("user_id"), Unique("1h")):
        assert await handle(bench, 1, layer) == "nak 1"


async def test_a_conflict_is_read_again(bench: Bench) -> None:
    one, other = (bench.dispatcher(nothing, middleware=[Throttle("3/m")]) for _ in range(2))
    ends: list[str] = []
    for number, dispatcher in enumerate((one, other, one, other)):
        delivery = bench.delivery(user(number))
        await dispatcher(delivery)
        ends.append(bench.driver.journal[-1][:3])

    # The last one has to wait for over half a minute, and so is parked.
    assert ends == ["ack", "ack", "ack", "ack"]
    assert len(bench.driver.scheduled) == 1


@pytest.mark.parametrize("rate", ["10", "0/1s", "10/", "ten/1s", "10/0s", 10.5, "10/1 fortnight"])
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    with pytest.raises(DeclarationError, match="rate"):
        Throttle(rate)


# WithoutOverlapping ----------------------------------------------------------------------------


async def test_two_runs_of_one_key_do_not_overlap(bench: Bench) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def slow(event: UserCreated) -> None:
        running.set()
        await go_on.wait()

    options: Any = {"middleware": [WithoutOverlapping(by="user_id", retry_after=7)]}
    bench.clock = _RealSleep()  # type: ignore[assignment]
    bench.driver.limits = LocalLimits(bench.clock)
    here, there = bench.dispatcher(slow, **options), bench.dispatcher(nothing, **options)
    async with asyncio.TaskGroup() as group:
        group.create_task(here(bench.delivery(user(1))))
        await running.wait()
        ends: list[str] = []
        for dispatcher, number in ((there, 1), (there, 2), (here, 1)):
            await dispatcher(bench.delivery(user(number)))
            ends.append(bench.driver.journal[-1])
            if number == 2:
                assert ends.pop() == "ack"
        go_on.set()

    assert ends == ["nak 7", "nak 7"]
    await there(bench.delivery(user(1)))
    assert bench.driver.journal[-1] == "ack"


async def test_a_failing_run_frees_its_lock(bench: Bench) -> None:
    async def fails(event: UserCreated) -> None:
        raise ValueError("no")

    layers = [WithoutOverlapping(by="user_id")]
    ended = await bench.handle(fails, middleware=layers)

    assert isinstance(ended, Settled)
    assert ended.outcome is Outcome.RETRY
    assert isinstance(ended.error, ValueError)
    assert await handle(bench, 1, *layers) == "ack"


async def test_a_run_whose_lock_is_lost_is_cancelled_and_goes_back(bench: Bench) -> None:
    log = bench.driver.limits
    ended: list[str] = []

    async def slow(event: UserCreated) -> None:
        (place,) = log._records
        record = await log.read(place)
        await log.write(place, b"somebody else", over=record.revision, keep=60)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    returned = await bench.handle(slow, middleware=[WithoutOverlapping(by="user_id")])

    assert isinstance(returned, Returned)
    assert ended == ["cancelled"]


async def test_the_lock_of_a_dead_process_runs_out(bench: Bench, clock: StillClock) -> None:
    limits = Limits(bench.driver.limits, "mail__send", clock)
    await limits.log.write(limits.place("lock", "u-1"), b"died", over=0, keep=LEASE)
    layer = WithoutOverlapping(by="user_id")
    assert (await handle(bench, 1, layer)).startswith("nak")

    clock.move(LEASE + 1)

    assert await handle(bench, 1, layer) == "ack"


# Unique ----------------------------------------------------------------------------------------


async def test_other_events_of_a_key_are_dropped(bench: Bench, clock: StillClock) -> None:
    ran: list[str] = []

    async def listener(event: UserCreated, context: Context) -> None:
        ran.append(context.id)

    async def give(id: str, number: int) -> Outcome:
        ended = await bench.handle(
            listener, bench.delivery(user(number, **{"ce-id": id})), middleware=[Unique("1h")]
        )
        assert isinstance(ended, Settled)
        return ended.outcome

    outcomes = [await give("a", 1), await give("b", 1), await give("a", 1), await give("c", 2)]
    clock.move(3601)
    outcomes.append(await give("b", 1))

    assert outcomes == [Outcome.OK, Outcome.DROPPED, Outcome.OK, Outcome.OK, Outcome.OK]
    assert ran == ["a", "a", "c", "b"]


async def test_events_without_a_key_are_compared_by_payload(bench: Bench) -> None:
    class MailSent(Event, name="mail.sent"):
        to: str

    bench.target = MailSent

    async def listener(event: MailSent) -> None: ...

    outcomes: list[Any] = []
    for id, to in (("a", "ada"), ("b", "bob"), ("c", "ada")):
        message = arriving(MailSent(to=to), **{"ce-id": id})
        ended = await bench.handle(listener, bench.delivery(message), middleware=["unique:1h"])
        outcomes.append(getattr(ended, "outcome", None))

    assert outcomes == [Outcome.OK, Outcome.OK, Outcome.DROPPED]


@pytest.mark.parametrize("for_", [0, "soon", -1])
def test_a_time_that_is_none_is_refused(for_: Any) -> None:
    with pytest.raises(DeclarationError, match="for_"):
        Unique(for_)
    with pytest.raises(DeclarationError, match="retry_after"):
        WithoutOverlapping(retry_after="soon")


# Declaring -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("throttle:10,1", Throttle("10/1m")),
        ("throttle:10", Throttle("10/1m")),
        ("throttle:10,5", Throttle("10/5m")),
        ("throttle:10/1s", Throttle("10/1s")),
        ("without_overlapping:user_id", WithoutOverlapping("user_id")),
        ("without_overlapping", WithoutOverlapping()),
        ("unique:3600", Unique(3600.0)),
        ("unique:1h,user_id", Unique("1h", "user_id")),
    ],
)
def test_a_limit_can_be_named(text: str, expected: Limit) -> None:
    assert middleware_named(text) == expected


def test_ten_a_minute_is_what_laravel_means() -> None:
    limit = middleware_named("throttle:10,1")

    assert isinstance(limit, Throttle)
    assert (limit.count, limit.span) == (10, 60.0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("throtle:10,1", "did you mean 'throttle'"),
        ("throttle", "other values"),
        ("throttle:10,1,1", "other values"),
        ("throttle:ten", "isn't a rate"),
        ("throttle:1,ten", "isn't a number"),
        ("unique:soon", "for_"),
    ],
)
def test_a_name_that_is_none_is_refused(text: str, problem: str) -> None:
    with pytest.raises(DeclarationError, match=problem):
        declared([text])


def test_a_breaker_may_stand_in_the_list() -> None:
    breaker, throttle = Breaker(), Throttle("10/1s")
    one = declared([throttle, breaker])

    assert (one.breaker, one.middleware) == (breaker, (throttle,))
    with pytest.raises(DeclarationError, match="2 breakers"):
        declared([breaker], breaker=Breaker())


@pytest.mark.parametrize("wrong", ["throttle:10,1", [5], [Throttle]])
def test_what_is_no_middleware_is_refused(wrong: Any) -> None:
    with pytest.raises(DeclarationError, match="middleware"):
        declared(wrong)


def test_a_field_that_an_event_lacks_is_refused(bench: Bench) -> None:
    with pytest.raises(DeclarationError, match="did you mean 'user_id'"):
        bench.dispatcher(nothing, middleware=[Throttle("1/s", by="userid")])


def test_the_field_of_an_event_that_nobody_declared_is_found_in_its_data() -> None:
    event = UnknownEvent(name="a.b", version=1, data={"user_id": 7})

    assert key_by("user_id", _context(event)) == "7"
    assert len(key_by(lambda _: "x" * 1000, _context(event))) == 64
    with pytest.raises(DeclarationError, match="no field 'other'"):
        key_by("other", _context(event))


async def test_local_records_are_changed_by_whoever_saw_the_last(clock: StillClock) -> None:
    log = LocalLimits(clock)
    first = await log.write("a", b"1", over=0, keep=5)

    assert first is not None
    assert await log.write("a", b"2", over=0, keep=5) is None
    second = await log.write("a", b"3", over=first, keep=5)
    assert await log.read("a") == LimitRecord(b"3", second or 0)
    clock.move(5)
    assert await log.read("a") is None


def declared(middleware: Any, **options: Any) -> Any:
    given: Any = {"middleware": middleware, **options}
    return subscription("mail", UserCreated, nothing, given)


def _context(event: Event) -> Any:
    class Stub:
        listener = "send"
        name = "a.b"

    stub: Any = Stub()
    stub.event = event
    return stub


class Unreachable:
    async def read(self, place: str) -> LimitRecord | None:
        raise DriverError("no answer")

    async def write(self, place: str, body: bytes, *, over: int, keep: float) -> int | None:
        raise DriverError("no answer")


class _RealSleep(StillClock):
    """Time stands still, and who sleeps never wakes."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()
