"""A retry's budget: counted from the first attempt, wherever and whenever the others run."""

from datetime import timedelta
from typing import Any

import pytest

from eventbus.attempts import History
from eventbus.delivery import Ack, DeadLetter, Nak, Park, Reason
from eventbus.errors import DeclarationError, ListenerTimeoutError, RetryLater
from eventbus.headers import lowered
from eventbus.retry import Retry
from eventbus.telemetry.signals import Settled
from tests.unit.bench import RETRY, Bench, arriving, raising
from tests.unit.conftest import START

MINUTE = Retry(attempts=99, delays=(10,), budget="1m")


@pytest.mark.parametrize(
    ("elapsed", "decision"),
    [
        (0, Nak(10)),
        (49, Nak(10)),
        (50, Nak(10)),
        (50.001, DeadLetter(Reason.EXCEPTION, "gave up after 7 attempts in 50 s, the budget is 60 s")),
        (3600, DeadLetter(Reason.EXCEPTION, "gave up after 7 attempts in 3.6e+03 s, the budget is 60 s")),
    ],
)  # fmt: skip
def test_a_retry_that_would_begin_after_the_budget_is_not_planned(
    elapsed: float, decision: object
) -> None:
    assert MINUTE.decide(ValueError(), 7, chance=0.5, elapsed=elapsed) == decision


def test_a_delay_that_a_listener_asks_for_is_held_against_the_budget_too() -> None:
    decided = [
        MINUTE.decide(RetryLater(after), 1, chance=0.5, park_after=30, elapsed=5)
        for after in (55, 56)
    ]

    assert decided[0] == Park(55)
    assert isinstance(decided[1], DeadLetter)


def test_the_reason_is_that_of_the_last_attempt() -> None:
    error = ListenerTimeoutError(listener="send", limit=1)

    decision = MINUTE.decide(error, 1, chance=0.5, elapsed=60)

    assert isinstance(decision, DeadLetter)
    assert decision.reason is Reason.TIMEOUT


def test_success_needs_no_budget_and_attempts_still_end() -> None:
    assert MINUTE.decide(None, 1, chance=0.5, elapsed=9999) == Ack()
    assert MINUTE.decide(ValueError(), 99, chance=0.5, elapsed=0) == DeadLetter(
        Reason.EXCEPTION, "gave up after 99 attempts"
    )


def test_a_budget_of_nothing_means_one_attempt_and_none_means_no_limit() -> None:
    nothing = Retry(budget=0, start=1, jitter="none").decide(ValueError(), 1, chance=0)
    without = Retry(jitter="none").decide(ValueError(), 1, chance=0, elapsed=1e9)

    assert isinstance(nothing, DeadLetter)
    assert without == Nak(1)


@pytest.mark.parametrize("budget", [-1, "soon", float("inf"), "1w"], ids=repr)
def test_a_budget_that_makes_no_sense_is_refused_where_it_is_written(budget: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Retry\(budget=\)"):
        Retry(budget=budget)


async def test_it_is_counted_from_the_beginning_of_the_first_attempt(bench: Bench) -> None:
    async def slow(event: object) -> None:
        bench.clock.move(55)
        raise ValueError

    ending = await bench.handle(slow, retry=MINUTE)

    assert isinstance(ending, Settled)
    assert ending.detail == "gave up after 1 attempts in 55 s, the budget is 60 s"


async def test_time_that_an_event_waited_for_its_first_attempt_does_not_count(
    bench: Bench,
) -> None:
    bench.clock.move(86400)

    await bench.handle(raising(ValueError()), retry=MINUTE)

    assert bench.driver.journal == ["nak 10"]


async def test_it_goes_on_with_the_next_delivery(bench: Bench) -> None:
    await bench.handle(raising(ValueError()), retry=MINUTE)
    bench.clock.move(51)

    ending = await bench.handle(raising(ValueError()), bench.delivery(deliveries=2), retry=MINUTE)

    assert [one.began for one in bench.driver.attempts.writes] == [START]
    assert isinstance(ending, Settled)
    assert ending.detail == "gave up after 2 attempts in 51 s, the budget is 60 s"


async def test_it_goes_on_after_a_park(bench: Bench) -> None:
    patient = Retry(attempts=99, delays=(3600,), budget="3h")
    await bench.handle(raising(ValueError()), retry=patient)
    ((parked, _, _),) = bench.driver.scheduled
    bench.clock.move(3601)
    arrived = arriving(
        subject=RETRY + "user.created",
        **{name.replace("-", "_"): value for name, value in lowered(parked.headers).items()},
    )

    await bench.handle(raising(ValueError()), bench.delivery(arrived), retry=patient)

    _, (again, _, _) = bench.driver.scheduled
    headers = lowered(again.headers)
    assert headers["eventbus-attempt"] == "2"
    assert headers["eventbus-began"] == "2026-03-01T10:00:00.000000Z"
    bench.clock.move(3601)
    ending = await bench.handle(raising(ValueError()), bench.delivery(arrived), retry=patient)
    assert isinstance(ending, Settled)
    assert ending.detail.endswith("the budget is 10800 s")


async def test_an_emitter_can_not_say_when_the_first_attempt_began(bench: Bench) -> None:
    forged = arriving(eventbus_began="2020-01-01T00:00:00Z")

    await bench.handle(raising(ValueError()), bench.delivery(forged), retry=MINUTE)

    assert bench.driver.journal == ["nak 10"]


async def test_the_first_of_several_known_beginnings_counts(bench: Bench) -> None:
    began = START - timedelta(seconds=55)
    bench.driver.attempts.histories["mail__send.EVENTS.1"] = History(
        failed=1, settled=1, began=began
    )

    ending = await bench.handle(raising(ValueError()), bench.delivery(deliveries=2), retry=MINUTE)

    assert isinstance(ending, Settled)
    assert ending.detail == "gave up after 2 attempts in 55 s, the budget is 60 s"
