"""`Owner`: tells a task that is cancelled by its owner from one that cancels itself."""

import asyncio
from collections.abc import Set as AbstractSet

__all__ = ("Owner", "error_of", "go_on", "has_cancelled_itself", "is_cancelled")


class Owner:
    """Runs tasks, and cancels none of them before it has said so.

    Until then a cancellation is the doing of the code in the task: ``asyncio.current_task()`` is
    within everybody's reach.
    """

    def __init__(
        self, tasks: AbstractSet[asyncio.Task[None]], group: asyncio.TaskGroup | None = None
    ) -> None:
        self._tasks = tasks
        self._group = group
        _owners.add(self)

    def owns(self, task: asyncio.Task[object]) -> bool:
        """Tell whether a task is its own."""
        return task in self._tasks

    def may_cancel(self) -> None:
        """Say that its tasks may be cancelled from now on."""
        _owners.discard(self)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Take note how one of its tasks has ended; call it before another one goes on.

        Where one raises, as what ends the process does, the group cancels all others, those of
        its other owners too.
        """
        if task.cancelled() or task.exception() is None:
            return
        for one in tuple(_owners):
            if one is self or (one._group is not None and one._group is self._group):
                one.may_cancel()


_owners: set[Owner] = set()
"""Those that cancel nothing yet."""


def has_cancelled_itself() -> bool:
    """Tell whether the code of this task has cancelled it."""
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return False
    return any(one.owns(task) for one in tuple(_owners))  # a copy: other threads have loops too


def is_cancelled() -> bool:
    """Tell whether this task is cancelled from outside, and has to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0 and not has_cancelled_itself()


def error_of(cancelled: asyncio.CancelledError, listener: str) -> Exception:
    """Return the failure of a listener whose own code has cancelled it, or what it awaits."""
    error = RuntimeError(f"listener '{listener}' was cancelled by its own code")
    error.__cause__ = cancelled
    return error


async def go_on() -> None:
    """Let this task, which has cancelled itself, go on as if it hadn't.

    Raises:
        CancelledError: Meanwhile its owner has cancelled it.
    """
    task = asyncio.current_task()
    assert task is not None, "run in a task"
    try:
        await asyncio.sleep(0)  # what was asked for and not raised yet is raised here
    except asyncio.CancelledError:
        if not has_cancelled_itself():
            raise
    while task.cancelling():
        task.uncancel()
