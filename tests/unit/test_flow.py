"""A flow runs items side by side, and makes tasks only for those that wait."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context

from eventbus.driving import begin
from eventbus.worker.flow import Flow

number: ContextVar[int] = ContextVar("number", default=0)


def beginning(
    run: Callable[[int], Coroutine[object, object, None]],
) -> Callable[[int], Awaitable[None] | None]:
    """Begin an item as a pump does: in a context of its own."""
    return lambda item: begin(run(item), copy_context())


class Ground:
    """A flow whose tasks are counted."""

    def __init__(
        self, group: asyncio.TaskGroup, run: Callable[[int], Coroutine[object, object, None]]
    ) -> None:
        self._group = group
        self.tasks: list[asyncio.Task[None]] = []
        self.flow = Flow(beginning(run), self._spawn)

    async def finish(self) -> None:
        """Let all begin that was taken, and the task end that stays for more."""
        await self.flow.begun()
        assert self.flow.end() == []

    def _spawn(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self._group.create_task(coroutine)
        self.tasks.append(task)
        return task


async def test_items_that_never_wait_share_a_task_and_keep_their_order() -> None:
    seen: list[int] = []

    async def run(item: int) -> None:
        seen.append(item)

    async with asyncio.TaskGroup() as group:
        ground = Ground(group, run)
        for item in range(100):
            ground.flow.take(item)
        await ground.finish()

    assert seen == list(range(100))
    assert len(ground.tasks) == 1


async def test_no_item_waits_for_another_that_waits() -> None:
    begun: list[int] = []
    go = asyncio.Event()

    async def run(item: int) -> None:
        begun.append(item)
        await go.wait()

    async with asyncio.TaskGroup() as group:
        ground = Ground(group, run)
        for item in range(5):
            ground.flow.take(item)
        await ground.flow.begun()
        assert begun == [0, 1, 2, 3, 4]
        go.set()
        await ground.finish()

    assert len(ground.tasks) == 5


async def test_what_an_item_sets_in_its_context_is_gone_for_the_next() -> None:
    seen: list[int] = []

    async def run(item: int) -> None:
        seen.append(number.get())
        number.set(item)
        if item % 2:
            await asyncio.sleep(0)
            assert number.get() == item

    async with asyncio.TaskGroup() as group:
        ground = Ground(group, run)
        for item in range(1, 5):
            ground.flow.take(item)
        await ground.finish()

    assert seen == [0, 0, 0, 0]


async def test_an_item_that_cancels_its_task_takes_no_other_with_it() -> None:
    seen: list[int] = []

    async def run(item: int) -> None:
        seen.append(item)
        if item == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        ground = Ground(group, run)
        for item in range(4):
            ground.flow.take(item)
        await ground.finish()

    assert sorted(seen) == [0, 1, 2, 3]


async def test_a_task_that_is_cancelled_before_it_begins_leaves_its_items_to_another() -> None:
    seen: list[int] = []

    async def run(item: int) -> None:
        seen.append(item)

    async with asyncio.TaskGroup() as group:
        ground = Ground(group, run)
        group.create_task(asyncio.sleep(0.01))
        ground.flow.take(1)
        ground.tasks[0].cancel()
        await ground.finish()

    assert seen == [1]


async def test_what_can_not_begin_any_more_can_be_taken_back() -> None:
    async def run(item: int) -> None:
        raise AssertionError(item)

    def spawn(_: Coroutine[object, object, None]) -> asyncio.Task[None]:
        raise RuntimeError("the group has ended")

    flow = Flow(beginning(run), spawn)
    flow.take(7)
    await flow.begun()

    assert flow.end() == [7]


async def test_an_error_reaches_the_item_that_waits() -> None:
    caught: list[str] = []

    async def run(_: int) -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            caught.append("timeout")

    async with asyncio.TaskGroup() as group:
        ground = Ground(group, run)
        ground.flow.take(1)
        await ground.finish()

    assert caught == ["timeout"]


async def test_what_comes_later_is_run_by_the_task_that_is_there() -> None:
    seen: list[int] = []

    async def run(item: int) -> None:
        seen.append(item)

    async with asyncio.TaskGroup() as group:
        ground = Ground(group, run)
        for item in range(5):
            ground.flow.take(item)
            await ground.flow.begun()
        await ground.finish()

    assert seen == [0, 1, 2, 3, 4]
    assert len(ground.tasks) == 1


async def test_a_task_that_is_cancelled_while_it_has_nothing_to_do_is_replaced() -> None:
    seen: list[int] = []

    async def run(item: int) -> None:
        seen.append(item)

    async with asyncio.TaskGroup() as group:
        ground = Ground(group, run)
        for item in range(3):
            ground.flow.take(item)
            await ground.flow.begun()
            ground.tasks[-1].cancel()
            await asyncio.wait((ground.tasks[-1],))
        await ground.finish()

    assert seen == [0, 1, 2]
    assert len(ground.tasks) == 3
