"""Quick tries: one attempt runs its listener again at once, where that may help."""

import asyncio
from typing import Any

import pytest

from eventbus.delivery import Outcome
from eventbus.errors import (
    DeclarationError,
    Discard,
    ListenerTimeoutError,
    NotConnectedError,
    Reject,
    RetryLater,
)
from eventbus.middleware.base import CallNext, Context
from eventbus.retry import Retry
from eventbus.telemetry.signals import ListenerStarted, Settled
from tests.unit.bench import Bench, EmailSent, UserCreated

QUICK = Retry(attempts=2, start=2, jitter="none", quick=2)


class LostRaceError(Exception):
    """Over in the next moment."""


class RateLimitedError(Exception):
    """Says when to come back."""


@pytest.mark.parametrize(
    ("tries", "delay"), [(1, 0.05), (2, 0.1), (3, 0.2), (4, 0.4), (5, 0.8), (6, None), (7, None)]
)
def test_the_pause_doubles_and_there_are_so_many_tries_and_no_more(
    tries: int, delay: float | None
) -> None:
    retry = Retry(quick=5, jitter="none")

    assert retry.quick_delay(LostRaceError(), tries, 0.5) == delay


def test_a_pause_is_drawn_by_chance_unless_there_is_no_jitter() -> None:
    assert Retry(quick=1).quick_delay(LostRaceError(), 1, 0.5) == 0.025


@pytest.mark.parametrize(
    "error",
    [
        RetryLater(),
        Reject("x"),
        Discard("x"),
        NotConnectedError("away"),
        ListenerTimeoutError(listener="send", limit=1),
        RateLimitedError(),
        ValueError(),
        UnicodeError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_says_itself_what_it_wants_is_not_tried_again_at_once(error: Exception) -> None:
    retry = Retry(quick=3).on(RateLimitedError, after=7).never(ValueError)

    assert retry.quick_delay(error, 1, 0.5) is None


def test_by_default_nothing_is_tried_again_at_once() -> None:
    assert Retry().quick_delay(LostRaceError(), 1, 0.5) is None


@pytest.mark.parametrize("quick", [-1, 6, 1.5, True, "2", None], ids=repr)
def test_a_number_of_quick_tries_that_makes_no_sense_is_refused(quick: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Retry\(quick="):
        Retry(quick=quick)


class Failing:
    """A listener that fails so often."""

    def __init__(self, times: int, error: Exception | None = None) -> None:
        self.left = times
        self.attempts: list[int] = []
        self.error = error or LostRaceError()

    async def __call__(self, event: UserCreated, context: Context) -> None:
        self.attempts.append(context.attempt)
        if self.left:
            self.left -= 1
            raise self.error


async def test_a_quick_try_that_succeeds_is_still_the_first_attempt(bench: Bench) -> None:
    listener = Failing(2)
    dispatcher = bench.dispatcher(listener, retry=QUICK)

    await dispatcher(bench.delivery())

    assert listener.attempts == [1, 1, 1]
    assert bench.driver.journal == ["ack"]
    assert len([one for one in bench.told if isinstance(one, ListenerStarted)]) == 1
    [settled] = [one for one in bench.told if isinstance(one, Settled)]
    assert (settled.outcome, settled.attempt) == (Outcome.OK, 1)
    assert settled.duration == pytest.approx(0.15)


async def test_after_the_last_quick_try_the_attempt_has_failed_once(bench: Bench) -> None:
    listener = Failing(3)

    ending = await bench.handle(listener, retry=QUICK)

    assert bench.driver.journal == ["nak 2"]
    assert isinstance(ending, Settled)
    assert (ending.attempt, ending.error) == (1, listener.error)
    assert [one.failed for one in bench.driver.attempts.writes] == [1]


async def test_a_signal_is_obeyed_at_once(bench: Bench) -> None:
    listener = Failing(3, RetryLater(7))

    await bench.handle(listener, retry=QUICK)

    assert (len(listener.attempts), bench.driver.journal) == (1, ["nak 7"])


async def test_its_own_middleware_is_around_each_try_and_the_service_s_around_the_attempt(
    bench: Bench,
) -> None:
    entered: list[str] = []

    def noting(name: str) -> Any:
        async def middleware(context: Context, call_next: CallNext) -> None:
            entered.append(name)
            await call_next(context)

        return middleware

    bench.middleware = (noting("service"),)
    await bench.handle(Failing(1), retry=QUICK, middleware=(noting("own"),))

    assert entered == ["service", "own", "own"]


async def test_what_an_earlier_try_emitted_is_not_emitted_twice(bench: Bench) -> None:
    failing = Failing(1)

    async def listener(event: UserCreated, context: Context) -> None:
        await context.emit(EmailSent(to="ada@example.org"))
        await context.emit(EmailSent(to="ada@example.org"))
        await failing(event, context)

    await bench.handle(listener, retry=QUICK)

    first, second, again_first, again_second = [one.id for one in bench.driver.published]
    assert first != second
    assert (first, second) == (again_first, again_second)


async def test_all_tries_share_the_time_limit_of_the_attempt(bench: Bench) -> None:
    runs = 0

    async def stubborn(event: UserCreated) -> None:
        nonlocal runs
        runs += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as exc:
            raise LostRaceError from exc

    ending = await bench.handle(stubborn, retry=QUICK, timeout=0.01)

    assert runs == 1
    assert isinstance(ending, Settled)
    assert ending.outcome is Outcome.RETRY


async def test_a_stop_is_not_answered_with_another_try(bench: Bench) -> None:
    runs: list[asyncio.Event] = []

    async def stubborn(event: UserCreated) -> None:
        runs.append(running)
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as exc:
            raise LostRaceError from exc

    running = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.handle(stubborn, retry=QUICK))
        await running.wait()
        task.cancel()

    assert (len(runs), bench.driver.journal) == (1, ["nak 0"])
