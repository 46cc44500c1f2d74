"""F25: a worker is told to stop while it is at work."""

import asyncio
import signal
import time

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken

pytestmark = [pytest.mark.faults, pytest.mark.nats]

GRACE = 3.0
LEASE = 300.0
"""So long that nothing in here waits for it to run out."""


async def test_f25_a_stop_under_load_ends_in_time_and_hands_back_what_isnt_done(
    stage: Stage,
) -> None:
    first = stage.worker("first", concurrency=8, ack_wait=LEASE, settings={"grace": GRACE})
    second = stage.worker("second", concurrency=8, ack_wait=LEASE)
    source = stage.service("source")
    async with source:
        first.start()
        await stage.started(1)
        long = [StepTaken(thread="long", number=n, seconds=5) for n in range(4)]
        await stage.emit(source, *long)
        async with stage.load(source, rate=100, make=brief) as load:
            await load.more(60)
            first.signal(signal.SIGTERM)
            asked = time.monotonic()
            code = await asyncio.to_thread(first.wait, 20)
            took = time.monotonic() - asked
            await load.more(30)
        second.start()
        # What was handed back comes again at once, far earlier than its lease would end.
        await stage.handled(*(one.mark for one in long), seconds=10)
        await stage.drained()

    stage.took("to stop", took, GRACE + 1)
    await stage.check()
    assert code == 0
    assert {one.attempt for one in stage.history.of(What.BEGUN)} == {1}


async def test_f25_a_stop_while_the_server_is_frozen_ends_in_time(
    stage: Stage, nats_server: NatsServer
) -> None:
    worker = stage.worker(concurrency=4, ack_wait=2.0, settings={"grace": GRACE})
    source = stage.service("source")
    steps = [StepTaken(thread="slow", number=n, seconds=5) for n in range(4)]
    async with source:
        worker.start()
        await stage.started(1)
        await stage.emit(source, *steps)
        await stage.history.until(lambda: len(stage.history.of(What.BEGUN)) == 4, "it works")

        nats_server.pause()
        worker.signal(signal.SIGTERM)
        asked = time.monotonic()
        code = await asyncio.to_thread(worker.wait, 20)
        took = time.monotonic() - asked
        nats_server.resume()
        worker.start()
        await stage.handled(*(one.mark for one in steps))
        await stage.drained()

    stage.took("to stop", took, GRACE + 1)
    await stage.check()
    assert code == 0


async def test_f25_a_second_sigterm_ends_at_once_and_loses_nothing(stage: Stage) -> None:
    worker = stage.worker(ack_wait=1.0, settings={"grace": 20})
    source = stage.service("source")
    step = StepTaken(thread="slow", number=1, seconds=5)
    async with source:
        worker.start()
        await stage.started(1)
        await stage.emit(source, step)
        await stage.history.until(lambda: bool(stage.history.of(What.BEGUN)), "it works")

        asked = time.monotonic()
        while worker.code is None:  # two that come before it looks are one
            worker.signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
        code = worker.code
        took = time.monotonic() - asked
        worker.start()
        await stage.handled(step.mark)
        await stage.drained()

    stage.took("to end at once", took, 4)
    await stage.check()
    assert code == 128 + signal.SIGTERM


def brief(thread: str, number: int) -> StepTaken:
    return StepTaken(thread=thread, number=number, seconds=0.05)
