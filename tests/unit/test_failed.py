"""A listener's ``failed``: told once an event is a dead letter, and never in the way of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventbus.declaration import subscription
from eventbus.delivery import Outcome, Reason
from eventbus.errors import (
    BackpressureError,
    DeclarationError,
    Discard,
    GaveUpError,
    Reject,
    SettleError,
)
from eventbus.event import Event
from eventbus.middleware.base import Context
from eventbus.retry import Retry
from eventbus.telemetry.signals import FailedHookRaised, Returned, Settled, Stuck
from tests.unit.bench import (
    DLQ,
    RETRY,
    Bench,
    EmailSent,
    UserCreated,
    arriving,
    raising,
    welcome,
)

ONCE = Retry(attempts=1)
TERM = "term: dead letter: exception"


class Told:
    """A hook that writes down what it is told, and when."""

    def __init__(
        self, journal: list[str], does: Callable[[Context], Awaitable[object]] | None = None
    ) -> None:
        self.calls: list[tuple[Event, Context, Exception]] = []
        self._journal = journal
        self._does = does

    async def __call__(self, event: Event, context: Context, error: Exception) -> None:
        self._journal.append("failed")
        self.calls.append((event, context, error))
        if self._does is not None:
            await self._does(context)


async def test_it_is_told_after_the_letter_is_stored_and_before_the_original_ends(
    bench: Bench,
) -> None:
    hook = Told(bench.driver.journal)
    error = ValueError("x")

    await bench.handle(raising(error), failed=hook, retry=ONCE)

    assert bench.driver.journal == [DLQ, "failed", TERM]
    [(event, context, told)] = hook.calls
    assert (event, told) == (UserCreated(user_id="u-1"), error)
    assert (context.id, context.attempt, context.listener) == ("id-1", 1, "send")


async def test_it_is_told_of_the_last_attempt_alone(bench: Bench) -> None:
    hook = Told(bench.driver.journal)

    await bench.handle(raising(ValueError()), failed=hook, retry=Retry(attempts=2, jitter="none"))

    assert bench.driver.journal == ["nak 1"]


@pytest.mark.parametrize("error", [None, Discard("a test account")], ids=str)
async def test_it_is_not_told_of_what_is_done_with(bench: Bench, error: Exception | None) -> None:
    hook = Told(bench.driver.journal)

    await bench.handle(welcome if error is None else raising(error), failed=hook, retry=ONCE)

    assert bench.driver.journal == ["ack"]


async def test_it_is_told_of_a_rejected_event(bench: Bench) -> None:
    hook = Told(bench.driver.journal)
    reject = Reject("no such user")

    await bench.handle(raising(reject), failed=hook)

    [(_, _, error)] = hook.calls
    assert error is reject


async def test_it_is_told_of_an_event_that_was_never_handled(bench: Bench) -> None:
    hook = Told(bench.driver.journal)
    expired = bench.delivery(arriving(eventbus_expires="2026-03-01T09:00:00Z"))
    parked = bench.delivery(arriving(subject=RETRY + "user.created", eventbus_attempt="9"))

    await bench.handle(welcome, expired, failed=hook)
    await bench.handle(welcome, parked, failed=hook)

    reasons = [
        (error.reason, error.detail)
        for _, _, error in hook.calls
        if isinstance(error, GaveUpError)
    ]
    assert reasons == [
        (Reason.EXPIRED, "expired at 2026-03-01T09:00:00.000000Z"),
        (Reason.CRASH, "no outcome after 9 attempts"),
    ]


@pytest.mark.parametrize(
    "headers", [{"ce_dataschema": "x/v1"}, {"ce_type": "user.deleted"}, {"content_type": "text/x"}]
)
async def test_it_is_not_told_of_what_could_not_be_read(
    bench: Bench, headers: dict[str, str]
) -> None:
    hook = Told(bench.driver.journal)
    bench.target = "user.created"

    async def only_newest(event: _Newest) -> None:
        raise ValueError

    bench.registry.register(UserCreated)
    bench.registry.register(_Newest)
    await bench.handle(only_newest, bench.delivery(arriving(**headers)), failed=hook)

    assert bench.letter().reason is Reason.INVALID
    assert hook.calls == []


class _Newest(Event, name="user.created", version=7):
    user_id: str


async def test_it_is_not_told_while_the_letter_can_not_be_stored(bench: Bench) -> None:
    hook = Told(bench.driver.journal)
    bench.driver.raises = [BackpressureError(stream="EVENTS_DLQ", problem="full")]

    ending = await bench.handle(raising(ValueError()), failed=hook, retry=ONCE)

    assert isinstance(ending, Stuck)
    assert bench.driver.journal == ["publish failed", "nak 5"]


async def test_it_is_told_again_where_the_end_of_the_original_was_lost(bench: Bench) -> None:
    hook = Told(bench.driver.journal)
    lost = bench.delivery(fails={"term": SettleError("lost")})

    await bench.handle(raising(ValueError()), lost, failed=hook, retry=ONCE)
    await bench.handle(
        raising(ValueError()), bench.delivery(deliveries=2), failed=hook, retry=ONCE
    )

    assert len(hook.calls) == 2
    first, second = bench.driver.published
    assert first.id == second.id


async def test_what_it_raises_is_told_and_changes_nothing(bench: Bench) -> None:
    error = RuntimeError("the hook is broken")

    async def broken(_: Context) -> None:
        raise error

    hook = Told(bench.driver.journal, broken)
    await bench.dispatcher(raising(ValueError()), failed=hook, retry=ONCE)(bench.delivery())

    assert bench.driver.journal == [DLQ, "failed", TERM]
    [told] = [one for one in bench.told if isinstance(one, FailedHookRaised)]
    assert (told.name, told.id, told.listener, told.error) == (
        "user.created",
        "id-1",
        "send",
        error,
    )
    [settled] = [one for one in bench.told if isinstance(one, Settled)]
    assert settled.outcome is Outcome.DEAD
    assert isinstance(settled.error, ValueError)


async def test_it_has_the_time_limit_of_its_listener(bench: Bench) -> None:
    hook = Told(bench.driver.journal, lambda _: asyncio.Event().wait())

    await bench.dispatcher(raising(ValueError()), failed=hook, retry=ONCE, timeout=0.01)(
        bench.delivery()
    )

    assert bench.driver.journal == [DLQ, "failed", TERM]
    [told] = [one for one in bench.told if isinstance(one, FailedHookRaised)]
    assert isinstance(told.error, TimeoutError)


async def test_a_stop_while_it_runs_hands_the_event_back(bench: Bench) -> None:
    runs = asyncio.Event()

    async def wait(_: Context) -> None:
        runs.set()
        await asyncio.Event().wait()

    hook = Told(bench.driver.journal, wait)
    handling = bench.handle(raising(ValueError()), failed=hook, retry=ONCE)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(handling)
        await runs.wait()
        task.cancel()

    assert bench.driver.journal == [DLQ, "failed", "nak 0"]
    assert any(isinstance(one, Returned) for one in bench.told)


async def test_what_it_emits_belongs_to_the_story_and_repeats_its_id(bench: Bench) -> None:
    email = EmailSent(to="ada@example.org")

    async def listener(event: UserCreated, context: Context) -> None:
        await context.emit(email)
        raise ValueError

    async def emit(context: Context) -> None:
        await context.emit(email)

    for _ in range(2):
        hook = Told(bench.driver.journal, emit)
        await bench.handle(listener, failed=hook, retry=ONCE)

    mails = [one for one in bench.driver.published if one.subject == "events.email.sent"]
    by_listener, by_hook, again_by_listener, again_by_hook = mails
    assert by_listener.id != by_hook.id
    assert (by_listener.id, by_hook.id) == (again_by_listener.id, again_by_hook.id)
    assert by_hook.headers["ce-causationid"] == "id-1"
    assert by_hook.headers["ce-correlationid"] == "c-1"


@pytest.mark.parametrize(
    "hook", [lambda event, context, error: None, 7, "failed"], ids=["sync", "number", "name"]
)
def test_what_is_no_async_function_is_refused_where_it_is_written(hook: Any) -> None:
    with pytest.raises(DeclarationError, match=r"listener 'welcome': failed=.* isn't an async"):
        subscription("mail", UserCreated, welcome, {"failed": hook})
