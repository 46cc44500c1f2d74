"""A listener that cancels the task it runs in has failed, and harms no other event."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventbus import Batch, Event, EventService, Retry, Settings
from eventbus.delivery import Outcome
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from eventbus.owner import Owner, has_cancelled_itself
from eventbus.telemetry.signals import Happened, Returned, Settled
from eventbus.testing.clock import VirtualClock


class TaskAdded(Event, name="task.added"):
    number: int


class Bench:
    """A service on a broker of its own, and how its deliveries ended."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self.clock)
        driver = MemoryDriver(self.broker)
        self.events = EventService("app", driver=driver, settings=Settings(), clock=self.clock)
        self.ended: list[Settled | Returned] = []
        self.events.observe(self._observe)

    def _observe(self, happened: Happened) -> None:
        if isinstance(happened, Settled | Returned):
            self.ended.append(happened)

    async def run(self, listener: Callable[..., Awaitable[None]], **options: Any) -> None:
        """Run it on two events until nothing more happens."""
        retry = Retry(attempts=3, start=1, jitter="none")
        self.events.subscribe(TaskAdded, listener, retry=retry, **options)
        async with self.events:
            for number in range(2):
                await self.events.emit(TaskAdded(number=number))
            await self.clock.advance(60)

    def outcomes(self) -> list[Outcome]:
        return [one.outcome for one in self.ended if isinstance(one, Settled)]


def cancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def and_waits() -> None:
    cancel()
    await asyncio.Event().wait()


async def and_raises() -> None:
    cancel()
    raise ValueError("no")


async def while_it_waits() -> None:
    await asyncio.sleep(0)
    cancel()
    cancel()
    await asyncio.Event().wait()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("does", [and_waits, and_raises, while_it_waits])
async def test_a_listener_that_cancels_itself_has_failed_and_the_others_go_on(
    does: Callable[[], Awaitable[None]], *, ordered: bool
) -> None:
    bench = Bench()

    async def listener(event: TaskAdded) -> None:
        if event.number == 0:
            await does()

    await bench.run(listener, ordered=ordered)

    expected = [Outcome.RETRY, Outcome.RETRY, Outcome.DEAD, Outcome.OK]
    assert sorted(bench.outcomes()) == sorted(expected)
    assert not any(isinstance(one, Returned) for one in bench.ended)
    assert len(bench.broker.dead_letters()) == 1


async def and_awaits_what_it_has_cancelled() -> None:
    inner = asyncio.get_running_loop().create_future()
    inner.cancel()
    await inner


@pytest.mark.parametrize("does", [and_waits, and_awaits_what_it_has_cancelled])
async def test_a_batch_that_cancels_itself_has_failed_for_all_of_its_events(
    does: Callable[[], Awaitable[None]],
) -> None:
    bench = Bench()
    runs: list[int] = []

    async def listener(events: list[TaskAdded]) -> None:
        runs.append(len(events))
        await does()

    await bench.run(listener, batch=Batch(max=2, max_wait=0.1))

    assert runs == [2, 2, 2]
    assert bench.outcomes() == [Outcome.RETRY] * 4 + [Outcome.DEAD] * 2


async def test_its_error_says_what_it_did() -> None:
    bench = Bench()

    async def listener(event: TaskAdded) -> None:
        await and_waits()

    await bench.run(listener)

    errors = {str(one.error) for one in bench.ended if isinstance(one, Settled)}
    assert errors == {"listener 'listener' was cancelled by its own code"}


@pytest.mark.parametrize("ordered", [False, True])
async def test_one_that_has_done_its_work_when_it_cancels_itself_has_done_it(
    *, ordered: bool
) -> None:
    bench = Bench()
    runs: list[int] = []

    async def listener(event: TaskAdded) -> None:
        runs.append(event.number)
        if len(runs) == 1:
            raise ValueError("so that the next run is a later attempt")
        cancel()

    await bench.run(listener, ordered=ordered)

    assert bench.outcomes() == [Outcome.RETRY, Outcome.OK, Outcome.OK]
    assert len(runs) == 3


async def test_a_background_job_that_ends_the_service_is_no_fault_of_its_listeners() -> None:
    bench = Bench()
    started = asyncio.Event()

    async def listener(event: TaskAdded) -> None:
        started.set()
        await asyncio.Event().wait()

    async def job() -> None:
        await started.wait()
        raise RuntimeError("the job is broken")

    async def emit() -> None:
        await bench.events.emit(TaskAdded(number=0))

    bench.events.background(emit)
    bench.events.background(job)
    bench.events.subscribe(TaskAdded, listener)
    with pytest.raises(RuntimeError, match="the job is broken"):
        await bench.events.run()

    assert [type(one) for one in bench.ended] == [Returned]


class Fatal(BaseException):
    """What ends a process."""


async def test_what_ends_a_process_cancels_those_beside_it_and_that_is_not_their_doing() -> None:
    seen: list[bool] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(has_cancelled_itself())

    async def fail() -> None:
        raise Fatal

    async def side_by_side() -> None:
        async with asyncio.TaskGroup() as group:
            first: set[asyncio.Task[None]] = set()
            second: set[asyncio.Task[None]] = set()
            owners = Owner(first, group), Owner(second, group)
            first.add(group.create_task(wait()))
            await asyncio.sleep(0)
            second.add(group.create_task(fail()))
            for owner, tasks in zip(owners, (first, second), strict=True):
                for task in tasks:
                    task.add_done_callback(owner.ended)

    with pytest.raises(BaseExceptionGroup):
        await side_by_side()

    assert seen == [False]
