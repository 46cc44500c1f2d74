"""Delays within their bounds, and a decision for everything that a listener can raise."""

import math
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from eventbus.delivery import Ack, DeadLetter, Drop, Nak, Park
from eventbus.duration import seconds
from eventbus.errors import DeclarationError, Discard, Reject, RetryLater
from eventbus.retry import Retry

CENTURY = 100 * 365 * 86400
FINITE = st.floats(0, CENTURY)
CHANCES = st.floats(0, 1, exclude_max=True)
ATTEMPTS = st.integers(1, 10**6)
POLICIES = st.builds(
    Retry,
    attempts=st.integers(1, 50),
    start=FINITE,
    factor=st.floats(1, 1e300),
    cap=FINITE,
    jitter=st.sampled_from(["full", "none"]),
    delays=st.lists(FINITE, max_size=4).map(tuple),
)
ANYTHING = st.none() | st.floats() | st.integers() | st.text() | st.timedeltas() | st.binary()


@given(POLICIES, ATTEMPTS, CHANCES)
def test_a_delay_is_finite_and_never_over_what_was_declared(
    retry: Retry, attempt: int, chance: float
) -> None:
    delay = retry.delay(attempt, chance)

    most = max(seconds(one) for one in retry.delays) if retry.delays else seconds(retry.cap)
    assert 0 <= delay <= most


@given(POLICIES, st.integers(1, 200))
def test_without_jitter_delays_never_shrink_unless_they_are_listed(
    retry: Retry, attempt: int
) -> None:
    steady = Retry(start=retry.start, factor=retry.factor, cap=retry.cap, jitter="none")

    assert steady.delay(attempt, 0.5) <= steady.delay(attempt + 1, 0.5)


@given(POLICIES, ATTEMPTS, CHANCES)
def test_jitter_only_ever_shortens(retry: Retry, attempt: int, chance: float) -> None:
    steady = Retry(start=retry.start, factor=retry.factor, cap=retry.cap, jitter="none")
    full = Retry(start=retry.start, factor=retry.factor, cap=retry.cap)

    assert full.delay(attempt, chance) == steady.delay(attempt, chance) * chance


@given(
    POLICIES,
    st.none()
    | st.builds(ValueError, st.text())
    | st.builds(RetryLater, ANYTHING)
    | st.builds(Reject, st.text())
    | st.builds(Discard, st.text()),
    st.integers(1, 60),
    CHANCES,
    FINITE | st.just(math.inf),
)
def test_whatever_a_listener_raises_there_is_a_decision(
    retry: Retry, error: Exception | None, attempt: int, chance: float, park_after: float
) -> None:
    match retry.decide(error, attempt, chance=chance, park_after=park_after):
        case Ack():
            assert error is None
        case Drop():
            assert isinstance(error, Discard)
        case DeadLetter():
            assert isinstance(error, Reject) or attempt >= retry.attempts
        case Nak(delay=delay):
            assert attempt < retry.attempts
            assert 0 <= delay <= min(park_after, CENTURY)
        case Park(delay=delay):
            assert attempt < retry.attempts
            assert park_after < delay <= CENTURY


@given(ANYTHING, st.integers(1, 5))
def test_a_rule_may_return_anything_without_holding_up_the_event(
    returned: object, attempt: int
) -> None:
    retry = Retry(attempts=9).on(ValueError, after=lambda _: returned)  # type: ignore[arg-type,return-value]

    decision = retry.decide(ValueError(), attempt, chance=0.5)

    assert isinstance(decision, Nak)
    assert 0 <= decision.delay <= CENTURY


@given(ANYTHING | st.lists(st.integers()))
def test_a_value_is_a_duration_or_a_value_error(value: object) -> None:
    try:
        read = seconds(value)  # type: ignore[arg-type]
    except ValueError:
        return
    assert 0 <= read <= CENTURY
    assert timedelta(seconds=read) >= timedelta(0)


@given(st.floats(), st.integers())
def test_a_policy_is_sensible_or_refused(number: float, attempts: int) -> None:
    try:
        retry = Retry(attempts=attempts, start=number, factor=number, cap=number)
    except DeclarationError:
        return
    assert retry.attempts >= 1
    assert math.isfinite(retry.delay(retry.attempts, 0.5))


def test_the_whole_of_the_default_policy_fits_the_duplicate_window() -> None:
    retry = Retry()

    longest = sum(retry.delay(attempt, 1 - 1e-9) for attempt in range(1, retry.attempts))

    assert longest < 600
