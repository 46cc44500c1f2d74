"""F9 and F10: far more events than a listener can take at once."""

import asyncio
import time

import pytest

from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken
from tests.faults.harness.worker import vitals

pytestmark = [pytest.mark.faults, pytest.mark.nats]

SLOTS = 8
MANY = 3000
AT_ONCE = 200
BURST = 10_000
WIDTH = 100


async def test_f09_a_slow_listener_gets_no_more_than_it_has_slots_and_each_event_once(
    stage: Stage,
) -> None:
    mailer = stage.service(emit_timeout=60, publish_timeout=10)
    stage.listen(mailer, concurrency=SLOTS, ack_wait=4.0)
    # Some run for longer than the ack wait: their heartbeats keep the lease.
    steps = [StepTaken(thread="slow", number=n, seconds=0.01) for n in range(MANY)]
    steps[::600] = [one.model_copy(update={"seconds": 5.0}) for one in steps[::600]]
    async with mailer:
        for some in range(0, MANY, AT_ONCE):  # so many that the loop still turns
            await stage.emit(mailer, *steps[some : some + AT_ONCE])
        before = vitals()["rss"]
        await stage.drained(40)
        grown = vitals()["rss"] - before
        await stage.calm(mailer)

    stage.measure("listeners at once", stage.history.most_at_once("send"), SLOTS)
    stage.measure("memory that grew, in MB", grown, 30)
    stage.measure("runs of an event", max(stage.history.counts(What.BEGUN).values()), 1)
    await stage.check()


async def test_f10_ten_thousand_events_at_once_are_stored_and_handled(stage: Stage) -> None:
    mailer = stage.service(emit_timeout=120, publish_timeout=30)
    stage.listen(mailer, concurrency=WIDTH, ack_wait=30)
    steps = [StepTaken(thread=f"k{n % 50}", number=n, seconds=0.01) for n in range(BURST)]
    async with mailer:
        began = time.monotonic()
        await stage.emit(mailer, *steps)
        stored = time.monotonic() - began
        tasks = len(asyncio.all_tasks())
        await stage.drained(40)
        await stage.calm(mailer)

    stage.took("to store them", stored, 20)
    stage.measure("listeners at once", stage.history.most_at_once("send"), WIDTH)
    stage.measure("tasks", tasks, WIDTH + 50)
    await stage.check()
