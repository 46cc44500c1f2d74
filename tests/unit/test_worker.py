"""The worker: nothing is pulled once it ends, whatever ends it, and what runs is given its time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventbus.clock import SystemClock
from eventbus.declaration import subscription
from eventbus.delivery import Delivery
from eventbus.drivers.base import Consumer, ConsumerSpec, Deliver
from eventbus.envelope import Message
from eventbus.event import Event
from eventbus.subscription import Subscription
from eventbus.worker.worker import Worker
from tests.unit.conftest import FakeDelivery, RecordingDriver


class UserCreated(Event, name="user.created"):
    user_id: str


async def listen(event: UserCreated) -> None: ...


SUBSCRIPTION = subscription("mail", UserCreated, listen, {"name": "send"})


class Feed(RecordingDriver):
    """A driver whose consumer delivers what a test gives it, until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.deliver: Deliver | None = None

    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Keep where deliveries go."""
        self.deliver = deliver
        return self

    async def stop(self) -> None:
        """Deliver no more."""
        self.deliver = None
        self.journal.append("stopped")

    def give(self) -> FakeDelivery:
        """Deliver a message."""
        assert self.deliver is not None
        delivery = FakeDelivery(Message("events.user.created", {}, b""), journal=self.journal)
        self.deliver(delivery)
        return delivery


class Handles:
    """What a worker sees of a dispatcher."""

    circuit = None
    has_limits = False
    shortcut = None

    def __init__(self, handle: Callable[[Delivery], Awaitable[None]]) -> None:
        self._handle = handle

    def __call__(self, delivery: Delivery, *, aftermath: object) -> Awaitable[None]:
        return self._handle(delivery)


def worker(
    driver: Feed,
    handle: Callable[[Delivery], Awaitable[None]],
    *jobs: Callable[[], Awaitable[None]],
) -> Worker:
    def dispatcher(_: Subscription) -> Any:
        return Handles(handle)

    return Worker(driver, dispatcher, jobs=jobs, clock=SystemClock())


class Running:
    """A worker in a task of its own."""

    def __init__(self, one: Worker, group: asyncio.TaskGroup, grace: float = 5.0) -> None:
        self.stopping, self.started = asyncio.Event(), asyncio.Event()
        run = one.run(
            [SUBSCRIPTION],
            started=self.started.set,
            stopping=self.stopping,
            grace=lambda: grace,
        )
        self.task = group.create_task(self._outcome(run))

    async def _outcome(self, run: Awaitable[int]) -> int | BaseException:
        try:
            return await run
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - the test looks at it
            return exc


async def acknowledge(delivery: Delivery) -> None:
    await delivery.ack()


async def hang(delivery: Delivery) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await delivery.nak()


async def test_a_stop_pulls_no_more_and_lets_what_runs_finish() -> None:
    driver, finish = Feed(), asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        await finish.wait()
        await delivery.ack()

    one = worker(driver, handle)
    async with asyncio.TaskGroup() as group:
        running = Running(one, group)
        await running.started.wait()
        driver.give()
        assert one.in_flight() == {"send": 1}
        running.stopping.set()
        while driver.deliver is not None:  # noqa: ASYNC110 - stop has nothing to wait for
            await asyncio.sleep(0)
        finish.set()

    assert driver.journal == ["stopped", "ack"]
    assert running.task.result() == 0
    assert one.in_flight() == {"send": 0}


async def test_what_does_not_finish_in_time_is_cancelled_and_counted() -> None:
    driver = Feed()

    async with asyncio.TaskGroup() as group:
        running = Running(worker(driver, hang), group, grace=1.01)
        await running.started.wait()
        driver.give()
        running.stopping.set()

    assert driver.journal == ["stopped", "nak 0"]
    assert running.task.result() == 1


async def test_a_job_that_raises_ends_the_worker_and_nothing_is_pulled_after() -> None:
    driver, go = Feed(), asyncio.Event()

    async def job() -> None:
        await go.wait()
        raise RuntimeError("the port is taken")

    async with asyncio.TaskGroup() as group:
        running = Running(worker(driver, hang, job), group)
        await running.started.wait()
        driver.give()
        await asyncio.sleep(0)
        go.set()

    assert sorted(driver.journal) == ["nak 0", "stopped"]
    ended = running.task.result()
    assert isinstance(ended, ExceptionGroup)
    assert str(ended.exceptions[0]) == "the port is taken"


async def test_cancelling_the_worker_hands_back_what_runs_and_pulls_no_more() -> None:
    driver = Feed()

    async with asyncio.TaskGroup() as group:
        running = Running(worker(driver, hang), group)
        await running.started.wait()
        driver.give()
        await asyncio.sleep(0)
        running.task.cancel()

    assert sorted(driver.journal) == ["nak 0", "stopped"]


async def test_jobs_are_cancelled_first_at_a_stop() -> None:
    driver = Feed()

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            driver.journal.append("job ended")

    async with asyncio.TaskGroup() as group:
        running = Running(worker(driver, acknowledge, job), group)
        await running.started.wait()
        await asyncio.sleep(0)
        running.stopping.set()

    assert sorted(driver.journal) == ["job ended", "stopped"]
    assert running.task.result() == 0


@pytest.mark.parametrize("slots", [1, 5])
async def test_deliveries_run_beside_one_another(slots: int) -> None:
    driver, most, let_go = Feed(), 0, asyncio.Event()
    one = worker(driver, lambda _: let_go.wait())  # type: ignore[arg-type,return-value]

    async with asyncio.TaskGroup() as group:
        running = Running(one, group)
        await running.started.wait()
        for _ in range(slots):
            driver.give()
        most = one.in_flight()["send"]
        let_go.set()
        running.stopping.set()

    assert most == slots
