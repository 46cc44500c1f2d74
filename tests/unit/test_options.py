"""Options of listeners: how long they go on trying, what they want, and when they begin."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eventbus import Context, Event, EventService
from eventbus.attempts import History
from eventbus.declaration import subscription
from eventbus.delivery import Outcome, Reason
from eventbus.drivers.memory import MemoryDriver
from eventbus.drivers.sync import SyncDriver
from eventbus.errors import DeclarationError, NotConnectedError, RetryLater, UnsupportedError
from eventbus.retry import UNLIMITED, Retry
from eventbus.settings import Settings
from eventbus.telemetry.signals import Returned, Settled
from tests.unit.bench import RETRY, Bench, UserCreated, arriving
from tests.unit.conftest import START, StillClock

PLACE = "mail__send.EVENTS.1"
DEFAULT = Retry(attempts=3, start=2, jitter="none")


async def fails(event: UserCreated) -> None:
    raise ValueError("no")


async def works(event: UserCreated) -> None: ...


async def ended(bench: Bench, listener: Any, delivery: Any = None, **options: Any) -> Settled:
    record = await bench.handle(listener, delivery, **options)
    assert isinstance(record, Settled)
    return record


def declared(**options: Any) -> Any:
    given: Any = options
    return subscription("mail", UserCreated, works, given)


# How long it goes on -----------------------------------------------------------------------------


def test_tries_and_backoff_are_the_retry_with_the_rest_from_the_settings() -> None:
    retry = declared(tries=7, backoff=[5, "15s", timedelta(seconds=30)]).retries(DEFAULT)

    assert (retry.attempts, retry.start, retry.jitter) == (7, 2, "none")
    assert [retry.delay(attempt, 0.5) for attempt in (1, 2, 3, 4)] == [5, 15, 30, 30]
    assert declared(backoff=9).retries(DEFAULT).delay(1, 0.5) == 9
    assert declared().retries(DEFAULT) == DEFAULT
    assert declared(retry=Retry(attempts=9)).retries(DEFAULT) == Retry(attempts=9)


def test_the_tries_of_an_event_count_where_its_listener_says_nothing() -> None:
    class UserBanned(Event, name="user.banned", tries=7):
        user_id: str

    async def banned(event: UserBanned) -> None: ...

    def attempts(**options: Any) -> int:
        return subscription("mail", UserBanned, banned, options).retries(DEFAULT).attempts  # type: ignore[arg-type]

    assert attempts() == 7
    assert attempts(tries=2) == 2
    assert attempts(retry=Retry(attempts=4)) == 4


async def test_a_backoff_delays_the_retry(bench: Bench) -> None:
    assert (await ended(bench, fails, tries=2, backoff=[5, 15])).delay == 5
    second = bench.delivery(deliveries=2)
    assert (await ended(bench, fails, second, tries=2, backoff=[5, 15])).outcome is Outcome.DEAD


async def test_so_many_exceptions_end_it_whatever_tries_are_left(bench: Bench) -> None:
    outcomes = [
        (
            await ended(bench, fails, bench.delivery(deliveries=one), tries=9, max_exceptions=2)
        ).outcome
        for one in (1, 2)
    ]

    assert outcomes == [Outcome.RETRY, Outcome.DEAD]
    assert bench.letter().reason is Reason.EXCEPTION


async def test_asking_for_a_later_try_is_no_exception(bench: Bench) -> None:
    async def later(event: UserCreated) -> None:
        raise RetryLater(1)

    options: Any = {"tries": 9, "max_exceptions": 1}
    outcomes = [
        (await ended(bench, later, bench.delivery(deliveries=one), **options)).outcome
        for one in (1, 2, 3)
    ]

    assert outcomes == [Outcome.RETRY] * 3
    assert bench.driver.attempts.histories[PLACE].raised == 0
    last = bench.delivery(deliveries=4)
    assert (await ended(bench, fails, last, **options)).outcome is Outcome.DEAD


async def test_exceptions_are_counted_through_a_park(bench: Bench) -> None:
    options: Any = {"tries": 9, "max_exceptions": 2, "backoff": 60}
    assert (await ended(bench, fails, **options)).outcome is Outcome.PARK
    parked, _, _ = bench.driver.scheduled[0]
    assert parked.headers["Eventbus-Raised"] == "1"

    back = arriving(
        subject=f"{RETRY}user.created", **{"eventbus-attempt": "1", "eventbus-raised": "1"}
    )

    assert (await ended(bench, fails, bench.delivery(back), **options)).outcome is Outcome.DEAD


async def test_a_listener_may_say_that_an_exception_is_final(bench: Bench) -> None:
    asked: list[tuple[str, type[Exception]]] = []

    def can_retry(event: UserCreated, error: Exception) -> bool:
        asked.append((event.user_id, type(error)))
        return not isinstance(error, ValueError)

    one = await ended(bench, fails, can_retry=can_retry)

    assert (one.outcome, one.detail) == (Outcome.DEAD, "can_retry said no")
    assert asked == [("u-1", ValueError)]
    assert (await ended(bench, fails, can_retry=False)).outcome is Outcome.DEAD
    assert (await ended(bench, fails, can_retry=True)).outcome is Outcome.RETRY


async def test_a_can_retry_that_fails_costs_nothing(bench: Bench) -> None:
    def broken(event: UserCreated, error: Exception) -> bool:
        raise KeyError("typo")

    assert (await ended(bench, fails, can_retry=broken)).outcome is Outcome.RETRY


async def test_nothing_is_tried_again_after_its_time(bench: Bench, clock: StillClock) -> None:
    options: Any = {"retry_until": START + timedelta(seconds=60), "backoff": 5}
    assert (await ended(bench, fails, **options)).attempts == UNLIMITED

    clock.move(56)
    late = await ended(bench, fails, bench.delivery(deliveries=2), **options)

    assert (late.outcome, late.reason) == (Outcome.DEAD, Reason.EXCEPTION)
    assert "retry_until" in late.detail


async def test_the_time_may_depend_on_the_event(bench: Bench) -> None:
    def until(event: UserCreated) -> datetime:
        return START + timedelta(seconds=1 if event.user_id == "u-1" else 100)

    other = bench.delivery(arriving(UserCreated(user_id="u-2")), sequence=2)

    assert (await ended(bench, fails, retry_until=until)).outcome is Outcome.DEAD
    assert (await ended(bench, fails, other, retry_until=until)).outcome is Outcome.RETRY


async def test_a_time_may_be_counted_from_the_first_attempt(
    bench: Bench, clock: StillClock
) -> None:
    options: Any = {"retry_until": "1m", "backoff": 20}
    outcomes: list[Outcome] = []
    for deliveries in (1, 2, 3, 4):
        delivery = bench.delivery(deliveries=deliveries)
        outcomes.append((await ended(bench, fails, delivery, **options)).outcome)
        clock.move(20)

    assert outcomes == [Outcome.RETRY, Outcome.RETRY, Outcome.RETRY, Outcome.DEAD]


async def test_an_event_that_crashes_is_not_run_for_ever(bench: Bench, clock: StillClock) -> None:
    bench.driver.attempts.histories[PLACE] = History(failed=7, settled=7, began=START)
    clock.move(61)

    one = await ended(bench, works, bench.delivery(deliveries=9), retry_until="1m")

    assert (one.outcome, one.reason) == (Outcome.DEAD, Reason.CRASH)


# What it wants -----------------------------------------------------------------------------------


async def test_what_a_listener_does_not_want_is_dropped_and_counted(bench: Bench) -> None:
    ran: list[str] = []

    async def listener(event: UserCreated) -> None:
        ran.append(event.user_id)

    def wanted(event: UserCreated) -> bool:
        return event.user_id == "u-2"

    other = bench.delivery(arriving(UserCreated(user_id="u-2")))
    first = await ended(bench, listener, when=wanted)
    second = await ended(bench, listener, other, when=wanted)

    assert (first.outcome, first.detail) == (Outcome.DROPPED, "when= said no")
    assert second.outcome is Outcome.OK
    assert ran == ["u-2"]


async def test_a_predicate_that_fails_is_a_failed_attempt(bench: Bench) -> None:
    def broken(event: UserCreated) -> bool:
        raise KeyError("typo")

    one = await ended(bench, works, when=broken)

    assert (one.outcome, type(one.error)) == (Outcome.RETRY, KeyError)


# When it begins ----------------------------------------------------------------------------------


async def test_an_event_waits_on_the_server_until_its_delay_is_over(
    bench: Bench, clock: StillClock
) -> None:
    clock.move(10)

    first = await bench.handle(works, delay="1m")

    assert isinstance(first, Returned)
    message, at, _ = bench.driver.scheduled[0]
    assert message.headers["Eventbus-Attempt"] == "0"
    assert at == START + timedelta(seconds=60)
    assert bench.driver.journal[-1] == "ack"
    clock.move(50)
    back = bench.delivery(arriving(subject=f"{RETRY}user.created"), stored_at=clock.now())
    second = await ended(bench, works, back, delay="1m")
    assert (second.outcome, second.attempt) == (Outcome.OK, 1)


async def test_a_short_delay_waits_in_place_and_makes_no_suspect(
    bench: Bench, clock: StillClock
) -> None:
    assert isinstance(await bench.handle(works, delay=2), Returned)
    assert bench.driver.journal[-1] == "nak 2"

    clock.move(2)
    one = await ended(bench, works, bench.delivery(deliveries=2), delay=2)

    assert (one.outcome, one.attempt) == (Outcome.OK, 1)
    assert bench.driver.attempts.writes == [History(settled=1)]


async def test_a_delay_may_depend_on_the_event(bench: Bench) -> None:
    def delay(event: UserCreated) -> str:
        return "3s" if event.user_id == "u-1" else "0s"

    other = bench.delivery(arriving(UserCreated(user_id="u-2")))

    assert isinstance(await bench.handle(works, delay=delay), Returned)
    assert (await ended(bench, works, other, delay=delay)).outcome is Outcome.OK


async def test_an_event_that_is_old_enough_runs_at_once(bench: Bench, clock: StillClock) -> None:
    clock.move(60)

    assert (await ended(bench, works, delay="1m")).outcome is Outcome.OK


async def test_a_driver_that_delivers_nothing_later_refuses_a_delay() -> None:
    events = EventService("mail", settings=Settings(), driver=SyncDriver())
    events.subscribe(UserCreated, works, delay="1m")

    with pytest.raises(UnsupportedError, match="delays"):
        await events.start()


# Coming, going, and again --------------------------------------------------------------------------


async def test_in_memory_a_listener_comes_goes_and_is_replayed() -> None:
    replays: list[bool] = []

    async def hear(event: UserCreated, context: Context) -> None:
        replays.append(context.is_replay)

    driver = MemoryDriver()
    events = EventService("mail", settings=Settings(), driver=driver)
    async with events:
        await events.subscribe(UserCreated, hear)
        await events.emit(UserCreated(user_id="u-1"))
        assert await events.replay(hear, "all") == 1
        await events.unsubscribe(hear)
        await events.emit(UserCreated(user_id="u-1"))
        assert set(driver.broker.durables) == {"mail__hear"}
        await events.subscribe(UserCreated, hear, mode="fanout", name="other")
        assert len(driver.broker.durables) == 2
    with pytest.raises(NotConnectedError, match="isn't working here"):
        await events.replay("other", "all")

    assert sorted(replays) == [False, True]
    assert set(driver.broker.durables) == {"mail__hear"}


@pytest.mark.parametrize(
    ("start", "options", "problem"),
    [
        ("new", {}, "nothing to replay from 'new'; give 'all', a time"),
        ("every", {}, "nothing to replay from 'every'"),
        (0, {}, "a sequence from 1 to 18446744073709551615"),
        (10**20, {}, "a sequence from 1 to 18446744073709551615"),
        (datetime(2026, 1, 1), {}, "a time with its zone"),  # noqa: DTZ001
        (datetime(9000, 1, 1, tzinfo=UTC), {}, "nothing is stored yet from 9000-01-01"),
        (
            datetime(2020, 1, 2, tzinfo=UTC),
            {"until": datetime(2020, 1, 1, tzinfo=UTC)},
            "the end must be later",
        ),
        ("all", {"until": datetime(2026, 1, 1)}, "must be a time with its zone"),  # noqa: DTZ001
        ("all", {"until": "2026-01-01"}, "must be a time with its zone"),
        ("all", {"until": 5}, "must be a time with its zone"),
        ("all", {"again": "yes"}, "again='yes' must be True or False"),
        ("all", {"again": 1}, "again=1 must be True or False"),
    ],
)
async def test_a_replay_that_makes_no_sense_is_refused_at_the_call(
    start: Any, options: dict[str, Any], problem: str
) -> None:
    events = EventService("mail", settings=Settings(), driver=MemoryDriver())
    events.subscribe(UserCreated, works)
    async with events:
        with pytest.raises(DeclarationError) as caught:
            await events.replay("works", start, **options)

    assert problem in str(caught.value)


# Declaring ---------------------------------------------------------------------------------------


def test_options_can_be_added_until_it_listens() -> None:
    events = EventService("mail", settings=Settings())

    events.subscribe(UserCreated, works).via_queue("emails").with_delay("10m").via_connection(
        "sync"
    )

    (one,) = events.subscriptions
    assert one.connection == "sync"
    assert one.queue == "emails"
    assert one.delay is not None
    assert one.delay(UserCreated(user_id="u-1")) == 600
    assert events.queues() == {"emails"}
    with pytest.raises(DeclarationError, match="delay"):
        events.subscribe(UserCreated, works, name="again").with_delay("soon")


async def later(event: UserCreated) -> bool:
    return True


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tries": 0}, "tries=0 must be at least 1"),
        ({"tries": 3, "retry": Retry()}, "tries= and retry= both"),
        ({"backoff": [1], "retry": Retry()}, "backoff= and retry= both"),
        ({"backoff": ["soon"]}, "backoff"),
        ({"max_exceptions": 0}, "max_exceptions=0"),
        ({"retry_until": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is the point
        ({"retry_until": "soon"}, "retry_until"),
        ({"retry_until": "1m", "retry": Retry()}, "Retry\\(budget=...\\)"),
        ({"can_retry": 5}, "can_retry=5 must be a function"),
        ({"when": later}, "isn't async"),
        ({"when": "user_id"}, "when='user_id' must be a function"),
        ({"delay": later}, "isn't async"),
        ({"delay": "soon"}, "delay"),
        ({"mode": "fan-out"}, "did you mean 'fanout'"),
        ({"mode": "fanout", "ordered": True}, "ordered=True is for mode='work'"),
        ({"mode": "ephemeral", "start": "all"}, "begins with new events"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, problem: str) -> None:
    with pytest.raises(DeclarationError, match=problem):
        declared(**options)
