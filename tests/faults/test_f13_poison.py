"""F13: an event that its listener can't bear, among events that it can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import pytest

from eventbus import EventService, Retry
from tests.faults.harness.checker import Letter
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.faults.harness.worker import Worker
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats]

ATTEMPTS = 3
POISON = "poison:1"


def poison(does: str) -> StepTaken:
    return StepTaken(thread="poison", number=1, does=does)


def good(count: int, seconds: float = 0.0) -> list[StepTaken]:
    return [StepTaken(thread="good", number=n, seconds=seconds) for n in range(count)]


@pytest.mark.parametrize(
    ("does", "reason", "error"),
    [
        ("raise", "exception", "ValueError"),
        ("memory", "exception", "MemoryError"),
        ("recursion", "exception", "RecursionError"),
        ("hang", "timeout", "listener.timeout"),
    ],
)
async def test_f13_a_listener_that_fails_is_tried_so_often_and_then_buried_with_its_cause(
    stage: Stage, does: str, reason: str, error: str
) -> None:
    mailer = stage.service()
    retry = Retry(attempts=ATTEMPTS, start=0.3, jitter="none")
    stage.listen(mailer, concurrency=4, timeout=0.5, retry=retry)
    async with mailer:
        await stage.emit(mailer, poison(does))
        await emits_beside(stage, mailer)
        await buried(stage)
        await stage.calm(mailer)

    stage.took("that most good ones take", usual_good(stage), 1)
    await stage.check()
    (letter,) = await stage.ground.letters()
    assert (letter.mark, letter.reason, letter.attempts) == (POISON, reason, ATTEMPTS)
    assert error in letter.error
    assert stage.history.counts(What.BEGUN)[POISON] == ATTEMPTS


@pytest.mark.parametrize("does", ["exit", "abort", "leave"])
async def test_f13_an_event_that_ends_its_process_is_found_and_none_beside_it_is_blamed(
    stage: Stage, does: str
) -> None:
    worker = stage.worker(concurrency=16, ack_wait=1.0, attempts=ATTEMPTS)
    source = stage.service("source")
    async with source, supervised(stage, worker):
        await stage.emit(source, *good(15, seconds=0.2), poison(does))
        letter = await buried(stage)
        await stage.calm(source)

    await stage.check()
    assert (letter.mark, letter.reason, letter.attempts) == (POISON, "crash", ATTEMPTS)
    assert [one.mark for one in await stage.ground.letters()] == [POISON]
    # The first run isn't an attempt: nobody knows yet whom to suspect (docs/adr/0004-attempts.md).
    assert stage.history.counts(What.BEGUN)[POISON] == ATTEMPTS + 1


@asynccontextmanager
async def supervised(stage: Stage, worker: Worker) -> AsyncIterator[None]:
    """Start the worker again whenever it has ended, as an orchestrator does."""

    async def supervise() -> None:
        while True:
            worker.start()
            await asyncio.to_thread(worker.wait, 60)

    async with asyncio.TaskGroup() as group:
        supervising = group.create_task(supervise())
        await stage.started(1)
        try:
            yield
        finally:
            supervising.cancel()
            worker.close()


async def emits_beside(stage: Stage, events: EventService) -> None:
    """Emit good events all the while that the poison is tried."""
    for step in good(30):
        await stage.emit(events, step)
        await asyncio.sleep(0.03)


async def buried(stage: Stage) -> Letter:
    """Wait for the dead letter."""

    async def is_there() -> bool:
        return bool(await stage.ground.letters())

    await eventually(is_there, 40)
    return (await stage.ground.letters())[0]


def usual_good(stage: Stage) -> float:
    """Return the median time from emit to effect of the good events, in seconds."""
    invoked = {one.mark: one.at for one in stage.history.of(What.INVOKED)}
    effects = stage.history.of(What.EFFECT)
    return median(one.at - invoked[one.mark] for one in effects if one.mark.startswith("good"))
