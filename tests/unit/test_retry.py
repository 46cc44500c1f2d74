"""Exception and attempt to a decision, and the delays between attempts."""

import math
from datetime import timedelta
from typing import Any

import pytest

from eventbus.delivery import Ack, DeadLetter, Drop, Nak, Park, Reason
from eventbus.errors import (
    DeclarationError,
    Discard,
    EmitUnknown,
    IdConflictError,
    InvalidEventError,
    ListenerTimeoutError,
    NotConnectedError,
    Reject,
    RetryLater,
    UnknownEventError,
)
from eventbus.retry import Retry

STEADY = Retry(attempts=3, start=2, jitter="none")


class RateLimitedError(Exception):
    """An error that says itself when to come back."""

    def __init__(self, after: float) -> None:
        self.after = after


def test_by_default_an_event_has_five_attempts_over_up_to_five_minutes_with_full_jitter() -> None:
    retry = Retry()

    assert (retry.attempts, retry.start, retry.factor, retry.cap, retry.jitter) == (
        5,
        1.0,
        2.0,
        300.0,
        "full",
    )


def test_the_delay_doubles_with_each_attempt_up_to_the_cap() -> None:
    retry = Retry(start=1, cap="10s", jitter="none")

    assert [retry.delay(attempt, 0.5) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_full_jitter_draws_evenly_from_zero_to_the_delay() -> None:
    retry = Retry(start=10, factor=1)

    assert [retry.delay(1, chance) for chance in (0.0, 0.25, 0.5)] == [0.0, 2.5, 5.0]


def test_given_delays_are_taken_as_they_are_and_the_last_one_repeats() -> None:
    retry = Retry(attempts=9, delays=("1s", timedelta(minutes=1), 7200))

    assert [retry.delay(attempt, 0.1) for attempt in (1, 2, 3, 4, 50)] == [1, 60, 7200, 7200, 7200]


@pytest.mark.parametrize(
    ("retry", "delay"),
    [
        (Retry(factor=1e10, jitter="none"), 300.0),
        (Retry(factor=1e308, start=1e3, jitter="none"), 300.0),
        (Retry(factor=2, start="1ms", jitter="none"), 300.0),
        (Retry(factor=1e10, start=0, jitter="none"), 0.0),
    ],
)
def test_the_delay_of_a_far_attempt_is_the_cap_and_not_an_overflow(
    retry: Retry, delay: float
) -> None:
    assert retry.delay(1_000_000, 0.5) == delay


@pytest.mark.parametrize(
    "values",
    [
        {"attempts": 0},
        {"attempts": 2.5},
        {"attempts": "5"},
        {"attempts": True},
        {"factor": 0.5},
        {"factor": math.nan},
        {"factor": math.inf},
        {"jitter": "some"},
        {"start": -1},
        {"start": "soon"},
        {"start": None},
        {"cap": math.inf},
        {"delays": (1, "x")},
        {"delays": "30"},
    ],
    ids=str,
)
def test_values_that_make_no_sense_are_refused_where_they_are_written(
    values: dict[str, Any],
) -> None:
    with pytest.raises(DeclarationError, match="Retry"):
        Retry(**values)


def test_a_delay_of_a_rule_that_makes_no_sense_is_refused_where_it_is_written() -> None:
    with pytest.raises(DeclarationError, match=r"Retry\(after=\)"):
        Retry().on(ValueError, after="soon")


def test_a_listener_that_returns_is_done() -> None:
    assert STEADY.decide(None, 1, chance=0.5) == Ack()


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_exception_is_tried_again_while_attempts_are_left(attempt: int) -> None:
    assert STEADY.decide(ValueError("x"), attempt, chance=0.5) == Nak(2.0**attempt)


@pytest.mark.parametrize("attempt", [3, 4, 100])
def test_the_last_attempt_ends_in_a_dead_letter(attempt: int) -> None:
    assert STEADY.decide(ValueError("x"), attempt, chance=0.5) == DeadLetter(
        Reason.EXCEPTION, f"gave up after {attempt} attempts"
    )


def test_one_attempt_means_no_retry() -> None:
    decision = Retry(attempts=1).decide(ValueError("x"), 1, chance=0.5)

    assert decision == DeadLetter(Reason.EXCEPTION, "gave up after 1 attempts")


def test_a_long_delay_parks_the_event_and_does_not_hold_a_pending_place() -> None:
    retry = Retry(delays=(30, 31))

    assert retry.decide(ValueError(), 1, chance=0, park_after=30) == Nak(30)
    assert retry.decide(ValueError(), 2, chance=0, park_after=30) == Park(31)


@pytest.mark.parametrize("attempt", [1, 99])
def test_discard_drops_and_reject_kills_at_any_attempt(attempt: int) -> None:
    assert STEADY.decide(Discard("a test"), attempt, chance=0) == Drop("a test")
    assert STEADY.decide(Reject("no order"), attempt, chance=0) == DeadLetter(
        Reason.REJECTED, "no order"
    )


@pytest.mark.parametrize(
    ("after", "delay"), [(7, 7.0), ("2m", 120.0), (timedelta(seconds=3), 3.0), (0, 0.0)]
)
def test_a_listener_may_say_when_to_try_again(
    after: float | str | timedelta, delay: float
) -> None:
    assert STEADY.decide(RetryLater(after), 1, chance=0.5) == Nak(delay)


def test_trying_again_on_request_counts_as_an_attempt() -> None:
    assert STEADY.decide(RetryLater(7), 3, chance=0.5) == DeadLetter(
        Reason.EXCEPTION, "gave up after 3 attempts"
    )


def test_a_request_without_a_time_gets_the_delay_of_the_curve() -> None:
    assert STEADY.decide(RetryLater(), 2, chance=0.5) == Nak(4.0)


@pytest.mark.parametrize("after", ["soon", -1, math.inf, 1e300], ids=str)
def test_a_request_with_a_time_that_is_none_gets_the_delay_of_the_curve(
    after: float | str,
) -> None:
    # Raising here would leave the event unsettled for ever: each run would end the same way.
    assert STEADY.decide(RetryLater(after), 2, chance=0.5) == Nak(4.0)


def test_a_rule_gives_its_kind_of_error_a_delay() -> None:
    retry = STEADY.on(RateLimitedError, after=lambda error: error.after).on(OSError, after="1m")

    assert retry.decide(RateLimitedError(9), 1, chance=0.5) == Nak(9.0)
    assert retry.decide(ConnectionResetError(), 1, chance=0.5) == Nak(60.0)
    assert retry.decide(ValueError(), 1, chance=0.5) == Nak(2.0)
    assert STEADY.decide(OSError(), 1, chance=0.5) == Nak(2.0)


@pytest.mark.parametrize("after", [-1.0, math.nan])
def test_a_rule_that_gives_no_time_leaves_it_to_the_curve(after: float) -> None:
    retry = STEADY.on(RateLimitedError, after=lambda error: error.after)

    assert retry.decide(RateLimitedError(after), 1, chance=0.5) == Nak(2.0)


def test_a_rule_that_fails_leaves_it_to_the_curve() -> None:
    retry = STEADY.on(ZeroDivisionError, after=lambda error: 1 / 0)

    assert retry.decide(ZeroDivisionError(), 1, chance=0.5) == Nak(2.0)


def test_some_errors_are_never_tried_again() -> None:
    retry = STEADY.never(KeyError, ValueError)

    assert retry.decide(ValueError(), 1, chance=0.5) == DeadLetter(
        Reason.EXCEPTION, "not retryable"
    )
    assert retry.decide(TypeError(), 1, chance=0.5) == Nak(2.0)


def test_the_first_rule_that_fits_decides() -> None:
    retry = STEADY.never(KeyError).on(LookupError, after=9)

    assert retry.decide(KeyError(), 1, chance=0.5) == DeadLetter(Reason.EXCEPTION, "not retryable")
    assert retry.decide(IndexError(), 1, chance=0.5) == Nak(9.0)


@pytest.mark.parametrize(
    "error",
    [
        UnknownEventError(name="a.b"),
        InvalidEventError(name="a.b", problems=[]),
        IdConflictError(name="a.b", id="1", stored="x"),
    ],
    ids=lambda error: error.code,
)
def test_a_fault_of_the_bus_that_trying_again_can_not_mend_is_a_dead_letter(
    error: Exception,
) -> None:
    # About what the listener emits: the event that it handles was valid, or it would not run.
    assert STEADY.decide(error, 1, chance=0.5) == DeadLetter(Reason.EXCEPTION, "not retryable")


def test_a_rule_of_the_users_wins_over_what_the_bus_thinks_of_its_errors() -> None:
    retry = STEADY.on(UnknownEventError, after=5)

    assert retry.decide(UnknownEventError(name="a.b"), 1, chance=0.5) == Nak(5.0)


@pytest.mark.parametrize(
    "error",
    [NotConnectedError("x"), EmitUnknown(name="a.b", id="1", after=1, tries=1)],
    ids=lambda error: error.code,
)
def test_a_fault_of_the_transport_is_tried_again(error: Exception) -> None:
    assert STEADY.decide(error, 1, chance=0.5) == Nak(2.0)


def test_a_timeout_is_tried_again_and_dies_as_a_timeout() -> None:
    error = ListenerTimeoutError(listener="send", limit=1)

    assert STEADY.decide(error, 1, chance=0.5) == Nak(2.0)
    assert STEADY.decide(error, 3, chance=0.5) == DeadLetter(
        Reason.TIMEOUT, "gave up after 3 attempts"
    )


def test_a_policy_is_a_value() -> None:
    assert Retry(attempts=3) == Retry(attempts=3)
    assert Retry(attempts=3) != Retry(attempts=4)
    assert STEADY.never(KeyError) != STEADY
    assert STEADY.rules == ()
