"""How the runs of an event are counted, and which are suspected of a crash."""

import asyncio

import pytest

from eventbus.attempts import History, Verdict, judge
from eventbus.delivery import Outcome, Reason
from eventbus.errors import (
    NotConnectedError,
    Reject,
    RetryLater,
)
from eventbus.middleware.base import Context
from eventbus.settlement import STAY_DELAY
from eventbus.telemetry.signals import (
    Settled,
    Stuck,
)
from tests.unit.bench import (
    DLQ,
    RETRY,
    Bench,
    UserCreated,
    arriving,
    raising,
    welcome,
)
from tests.unit.conftest import FakeDelivery


async def test_a_first_success_asks_and_writes_no_record_of_attempts(bench: Bench) -> None:
    bench.driver.attempts.fails = NotConnectedError("away")

    await bench.handle(welcome)

    assert bench.driver.journal == ["ack"]


async def test_each_failure_is_recorded_and_the_next_run_is_the_next_attempt(bench: Bench) -> None:
    seen: list[int] = []

    async def send(event: UserCreated, context: Context) -> None:
        seen.append(context.attempt)
        raise ValueError("x")

    for deliveries in (1, 2, 3):
        await bench.handle(send, bench.delivery(deliveries=deliveries))

    assert seen == [1, 2, 3]
    assert bench.driver.journal == ["nak 2", "nak 4", DLQ, "term: dead letter: exception"]
    assert bench.letter().attempts == 3
    assert bench.driver.attempts.histories == {}


async def test_a_late_success_leaves_no_record(bench: Bench) -> None:
    await bench.handle(raising(ValueError()))
    await bench.handle(welcome, bench.delivery(deliveries=2))

    assert bench.driver.attempts.histories == {}


async def test_a_parked_event_carries_its_attempts(bench: Bench) -> None:
    seen: list[int] = []

    async def send(event: UserCreated, context: Context) -> None:
        seen.append(context.attempt)

    message = arriving(subject=RETRY + "user.created", eventbus_attempt="2")
    await bench.handle(send, bench.delivery(message))

    assert seen == [3]


async def test_a_producer_can_not_use_up_attempts_of_an_event(bench: Bench) -> None:
    ending = await bench.handle(welcome, bench.delivery(arriving(eventbus_attempt="999")))

    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.attempt) == (Outcome.OK, 1)


async def test_a_run_that_left_no_outcome_is_marked_before_it_is_repeated(bench: Bench) -> None:
    seen: list[History] = []

    async def send(event: UserCreated) -> None:
        seen.extend(bench.driver.attempts.writes)

    ending = await bench.handle(send, bench.delivery(deliveries=2))

    assert seen == [History(started=2)]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.attempt) == (Outcome.OK, 1)


async def test_a_suspect_does_not_run_where_its_mark_can_not_be_written(bench: Bench) -> None:
    ran: list[int] = []

    async def send(event: UserCreated) -> None:
        ran.append(1)

    bench.driver.attempts.fails = NotConnectedError("away")
    ending = await bench.handle(send, bench.delivery(deliveries=2))

    assert ran == []
    assert bench.driver.journal == [f"nak {STAY_DELAY:g}"]
    assert isinstance(ending, Stuck)


async def test_suspects_run_one_at_a_time_and_others_beside_them(bench: Bench) -> None:
    running: set[str] = set()
    most: list[set[str]] = []
    two_run, let_go = asyncio.Event(), asyncio.Event()

    async def send(event: UserCreated) -> None:
        running.add(event.user_id)
        most.append(set(running))
        if len(most) == 2:
            two_run.set()
        await let_go.wait()
        running.discard(event.user_id)

    dispatcher = bench.dispatcher(send)
    suspects = [
        bench.delivery(arriving(UserCreated(user_id=name)), deliveries=2, sequence=number)
        for number, name in enumerate(("suspect 1", "suspect 2"))
    ]
    async with asyncio.TaskGroup() as group:
        for one in (*suspects, bench.delivery(arriving(UserCreated(user_id="other")))):
            group.create_task(dispatcher(one))
        await two_run.wait()
        let_go.set()

    assert not any({"suspect 1", "suspect 2"} <= together for together in most)
    assert any("other" in together and len(together) == 2 for together in most)
    assert [one for one in bench.driver.journal if one != "in progress"] == ["ack"] * 3


async def test_a_suspect_runs_only_once_the_one_before_is_settled(bench: Bench) -> None:
    happened: list[str] = []

    async def send(event: UserCreated) -> None:
        happened.append(f"{event.user_id} runs")

    class Slow(FakeDelivery):
        async def ack(self) -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            happened.append(f"{self.sequence} is settled")

    dispatcher = bench.dispatcher(send)
    async with asyncio.TaskGroup() as group:
        for number in (1, 2):
            message = arriving(UserCreated(user_id=str(number)))
            group.create_task(dispatcher(Slow(message, deliveries=2, sequence=number)))

    assert happened == ["1 runs", "1 is settled", "2 runs", "2 is settled"]


async def test_a_suspect_that_waited_for_longer_than_its_lease_is_neither_run_nor_marked(
    bench: Bench,
) -> None:
    ran: list[str] = []
    waited = bench.delivery(arriving(UserCreated(user_id="2")), deliveries=2, sequence=2)

    async def send(event: UserCreated) -> None:
        ran.append(event.user_id)
        waited.lost = True

    dispatcher = bench.dispatcher(send)
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher(bench.delivery(deliveries=2)))
        group.create_task(dispatcher(waited))

    assert ran == ["u-1"]
    assert bench.driver.attempts.writes == [History(started=2)]


async def test_a_suspect_that_is_lost_while_it_is_marked_is_not_blamed(bench: Bench) -> None:
    ran: list[str] = []
    delivery = bench.delivery(deliveries=2)
    log = bench.driver.attempts

    async def send(event: UserCreated) -> None:
        ran.append(event.user_id)

    async def write(place: str, history: History) -> None:
        log.histories[place] = history
        delivery.lost = True

    log.write = write  # type: ignore[method-assign]
    await bench.handle(send, delivery)

    assert ran == []
    (history,) = log.histories.values()
    assert judge(history, deliveries=3) == Verdict(1, history=history)


@pytest.mark.parametrize("raised", [ValueError("no"), RetryLater(after=60), Reject("no")])
async def test_what_isnt_ours_any_more_is_settled_by_whoever_has_it(
    bench: Bench, raised: Exception
) -> None:
    delivery = bench.delivery()

    async def send(event: UserCreated) -> None:
        delivery.lost = True
        raise raised

    ending = await bench.handle(send, delivery)

    assert isinstance(ending, Stuck)
    assert bench.driver.published == bench.driver.scheduled == []
    assert bench.driver.attempts.writes == []


async def test_an_event_that_is_lost_while_its_letter_is_stored_keeps_its_record(
    bench: Bench,
) -> None:
    delivery = bench.delivery(deliveries=4)
    before = History(failed=2, settled=3)
    bench.driver.attempts.histories["mail__send.EVENTS.1"] = before

    async def failed(event: UserCreated, context: Context, error: Exception) -> None:
        delivery.lost = True

    async def send(event: UserCreated) -> None:
        raise ValueError("the last attempt")

    ending = await bench.handle(send, delivery, failed=failed)

    assert isinstance(ending, Stuck)
    assert bench.letter().reason is Reason.EXCEPTION
    assert list(bench.driver.attempts.histories.values()) == [before]


async def test_an_event_that_ends_its_process_each_time_becomes_a_dead_letter(
    bench: Bench,
) -> None:
    ran: list[int] = []

    async def send(event: UserCreated) -> None:
        ran.append(1)

    crashed = History(failed=2, settled=3, started=4)
    bench.driver.attempts.histories["mail__send.EVENTS.1"] = crashed
    ending = await bench.handle(send, bench.delivery(deliveries=5))

    assert ran == []
    assert bench.driver.journal == [DLQ, "term: dead letter: crash"]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.reason) == (Outcome.DEAD, Reason.CRASH)
    letter = bench.letter()
    assert (letter.reason, letter.attempts) == (Reason.CRASH, 3)
    assert letter.error_message == "no outcome after 3 attempts"
