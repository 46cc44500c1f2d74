"""Batches: what is run together, what of it failed, and what each delivery keeps of its own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from eventbus import Batch, BatchContext, Context, Discard, Reject
from eventbus.attempts import History
from eventbus.clock import SystemClock
from eventbus.correlation import current_scope
from eventbus.declaration import subscription
from eventbus.delivery import Outcome
from eventbus.dispatch import Dispatcher
from eventbus.errors import DeclarationError, ListenerTimeoutError
from eventbus.telemetry.signals import Returned, Settled
from tests.unit.bench import Bench, EmailSent, UserCreated, arriving
from tests.unit.conftest import FakeDelivery, RecordingDriver

BATCH = Batch(max=3, max_wait=0.05)


@pytest.fixture
def bench(driver: RecordingDriver) -> Bench:
    return Bench(driver, SystemClock())  # type: ignore[arg-type]


def deliveries(bench: Bench, count: int, **changes: Any) -> list[FakeDelivery]:
    return [
        bench.delivery(
            arriving(UserCreated(user_id=f"u-{one}"), **{"ce-id": f"id-{one}"}),
            sequence=one,
            **changes,
        )
        for one in range(count)
    ]


async def dispatched(dispatcher: Dispatcher, given: Sequence[FakeDelivery]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in given:
            group.create_task(dispatcher(one))


def ended(bench: Bench) -> dict[str, Settled]:
    return {one.id: one for one in bench.told if isinstance(one, Settled)}


async def test_a_batch_is_run_once_it_is_full_and_what_is_left_after_a_while(bench: Bench) -> None:
    runs: list[list[str]] = []

    async def store(events: list[UserCreated]) -> None:
        runs.append([one.user_id for one in events])

    await dispatched(bench.dispatcher(store, batch=BATCH), deliveries(bench, 5))

    assert runs == [["u-0", "u-1", "u-2"], ["u-3", "u-4"]]
    assert [one.outcome for one in ended(bench).values()] == [Outcome.OK] * 5


async def test_only_what_failed_is_tried_again(bench: Bench) -> None:
    async def store(events: list[UserCreated], context: BatchContext[UserCreated]) -> None:
        context.fail(events[0], ValueError("no"))
        context.fail(2, Reject("never"))

    given = deliveries(bench, 3)
    await dispatched(bench.dispatcher(store, batch=BATCH), given)

    settled = ended(bench)
    assert settled["id-0"].outcome is Outcome.RETRY
    assert isinstance(settled["id-0"].error, ValueError)
    assert settled["id-1"].outcome is Outcome.OK
    assert settled["id-2"].outcome is Outcome.DEAD
    assert bench.driver.attempts.histories == {"mail__send.EVENTS.0": History(failed=1, settled=1)}


async def test_all_have_failed_where_the_listener_raises(bench: Bench) -> None:
    async def store(events: list[UserCreated], context: BatchContext[UserCreated]) -> None:
        context.fail(1, Discard("known"))
        raise ConnectionError("refused")

    await dispatched(bench.dispatcher(store, batch=BATCH), deliveries(bench, 3))

    outcomes = [ended(bench)[f"id-{one}"].outcome for one in range(3)]
    assert outcomes == [Outcome.RETRY, Outcome.DROPPED, Outcome.RETRY]


async def test_each_event_keeps_its_own_attempts(bench: Bench) -> None:
    bench.driver.attempts.histories["mail__send.EVENTS.1"] = History(failed=2, settled=2)
    seen: list[int] = []

    async def store(events: list[UserCreated], context: BatchContext[UserCreated]) -> None:
        seen.extend(one.attempt for one in context.items)
        raise ValueError("no")

    first, second = deliveries(bench, 2)
    second.deliveries = 3
    await dispatched(bench.dispatcher(store, batch=BATCH, tries=3), [first, second])

    assert seen == [1, 3]
    assert ended(bench)["id-0"].outcome is Outcome.RETRY
    assert ended(bench)["id-1"].outcome is Outcome.DEAD


async def test_a_suspect_is_a_batch_of_its_own(bench: Bench) -> None:
    runs: list[list[str]] = []

    async def store(events: list[UserCreated]) -> None:
        runs.append([one.user_id for one in events])

    given = deliveries(bench, 3)
    given[1].deliveries = 2
    await dispatched(bench.dispatcher(store, batch=BATCH), given)

    assert sorted(runs) == [["u-0", "u-2"], ["u-1"]]


async def test_a_batch_that_runs_too_long_is_cancelled_for_all_of_it(bench: Bench) -> None:
    async def store(events: list[UserCreated]) -> None:
        await asyncio.Event().wait()

    # It runs once it is full; with a short wait each delivery had a limit that a slow machine meets.
    batch = Batch(max=3, max_wait=30)
    await dispatched(bench.dispatcher(store, batch=batch, timeout=0.05), deliveries(bench, 3))

    errors = [type(one.error) for one in ended(bench).values()]
    assert errors == [ListenerTimeoutError] * 3


async def test_so_many_batches_run_at_once_and_what_comes_meanwhile_is_gathered(
    bench: Bench,
) -> None:
    runs: list[int] = []
    running = most = 0

    async def store(events: list[UserCreated]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        runs.append(len(events))
        await asyncio.sleep(0.02)
        running -= 1

    dispatcher = bench.dispatcher(store, batch=Batch(max=10, max_wait=0.001))
    async with asyncio.TaskGroup() as group:
        for one in deliveries(bench, 12):
            group.create_task(dispatcher(one))
            await asyncio.sleep(0.002)

    assert most == 1
    assert sum(runs) == 12
    assert len(runs) < 6


async def test_when_the_one_that_leads_is_stopped_the_others_go_back(bench: Bench) -> None:
    running = asyncio.Event()

    async def store(events: list[UserCreated]) -> None:
        running.set()
        await asyncio.Event().wait()

    dispatcher = bench.dispatcher(store, batch=Batch(max=2, max_wait=9))
    first, second = deliveries(bench, 2)
    async with asyncio.TaskGroup() as group:
        leads = group.create_task(dispatcher(first))
        group.create_task(dispatcher(second))
        await running.wait()
        leads.cancel()

    assert sum(isinstance(one, Returned) for one in bench.told) == 2
    assert ended(bench) == {}
    assert {one.failed for one in bench.driver.attempts.histories.values()} == {0}


async def test_what_is_stopped_while_it_waits_is_left_out(bench: Bench) -> None:
    runs: list[list[str]] = []

    async def store(events: list[UserCreated]) -> None:
        runs.append([one.user_id for one in events])

    dispatcher = bench.dispatcher(store, batch=Batch(max=9, max_wait=0.1))
    first, second = deliveries(bench, 2)
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher(first))
        waits = group.create_task(dispatcher(second))
        await asyncio.sleep(0.01)
        waits.cancel()

    assert runs == [["u-0"]]


async def test_an_items_context_emits_in_its_own_name(bench: Bench) -> None:
    causes: list[str | None] = []

    async def store(events: list[UserCreated], context: BatchContext[UserCreated]) -> None:
        for event in events:
            item: Context = context.context(event)
            await item.emit(EmailSent(to="ada"))
        causes.append(current_scope().causation_id)

    await dispatched(bench.dispatcher(store, batch=BATCH), deliveries(bench, 3))

    emitted = [one.headers["ce-causationid"] for one in bench.driver.published]
    assert emitted == ["id-0", "id-1", "id-2"]
    assert len({one.id for one in bench.driver.published}) == 3
    assert causes == [None]


def test_an_event_of_another_list_cannot_fail() -> None:
    context: BatchContext[UserCreated] = BatchContext(())

    with pytest.raises(ValueError, match="isn't in the batch"):
        context.fail(UserCreated(user_id="u-1"), ValueError())
    with pytest.raises(ValueError, match="no event 0"):
        context.fail(0, ValueError())


@pytest.mark.parametrize(
    "wrong", [{"max": 0}, {"max": 5000}, {"max_wait": "soon"}, {"max_wait": "2m"}]
)
def test_a_batch_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match=next(iter(wrong))):
        Batch(**wrong)


async def many(events: list[UserCreated]) -> None: ...


async def single(event: UserCreated) -> None: ...


async def other(events: list[EmailSent]) -> None: ...


@pytest.mark.parametrize(
    ("listener", "options", "problem"),
    [
        (many, {}, "needs batch="),
        (many, {"batch": 5}, "needs batch="),
        (single, {"batch": BATCH}, "must be a list"),
        (other, {"batch": BATCH}, "takes EmailSent"),
        (many, {"batch": BATCH, "ordered": True}, "contradicts"),
    ],
)
def test_a_listener_of_batches_takes_a_list(listener: Any, options: Any, problem: str) -> None:
    with pytest.raises(DeclarationError, match=problem):
        subscription("mail", UserCreated, listener, options)


def test_a_listener_of_batches_has_room_for_them() -> None:
    options: Any = {"batch": Batch(max=50), "concurrency": 2}

    one = subscription("mail", UserCreated, many, options)

    assert one.consumer().slots == 100
    assert subscription("mail", UserCreated, many, {"batch": BATCH}).concurrency == 1  # type: ignore[typeddict-unknown-key]
