"""Run a coroutine in the task that is there, up to the moment at which it has to wait.

Most work never waits. What only matters while something waits (a task of its own, a timer) is then
not made at all.
"""

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import TypeVar

__all__ = ("Begun", "begin", "begin_where")

T = TypeVar("T")
_ENDED = object()


def begin(
    coroutine: Coroutine[object, object, object], context: Context | None = None
) -> "Begun | None":
    """Run a coroutine until it has to wait; None where it has ended without.

    It runs in ``context`` where one is given, also when it goes on. Raises what it raises.
    """
    # Not by `send`: raising StopIteration takes as long as all the rest.
    if context is None:
        waits_for = next(coroutine.__await__(), _ENDED)
    else:
        waits_for = context.run(next, coroutine.__await__(), _ENDED)
    return None if waits_for is _ENDED else Begun(coroutine, waits_for, context)


def begin_where(
    coroutine: Coroutine[object, object, object], variable: ContextVar[T], value: T
) -> "Begun | None":
    """Begin as `begin` does, in a copy of this context in which a variable has another value."""
    context = copy_context()
    waits_for = context.run(_first, coroutine.__await__(), variable, value)
    return None if waits_for is _ENDED else Begun(coroutine, waits_for, context)


def _first(steps: Generator[object, object, object], variable: ContextVar[T], value: T) -> object:
    variable.set(value)
    return next(steps, _ENDED)


class Begun:
    """A coroutine that waits; await this in the same task, and at once, to let it go on."""

    __slots__ = ("_context", "_coroutine", "_waits_for")

    def __init__(
        self,
        coroutine: Coroutine[object, object, object],
        waits_for: object,
        context: Context | None,
    ) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._context = context

    def __await__(self) -> Generator[object, object, None]:
        """Hand what it waits for to the event loop, and what comes of that to the coroutine."""
        came: object = None
        while True:
            raised: BaseException | None = None
            try:
                came = yield self._waits_for
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - the coroutine's to handle
                raised = exc
            try:
                self._waits_for = self._go_on(came, raised)
            except StopIteration:
                return

    def _go_on(self, came: object, raised: BaseException | None) -> object:
        if raised is not None:
            return self._in_context(self._coroutine.throw, raised)
        return self._in_context(self._coroutine.send, came)

    def _in_context(self, step: Callable[[T], object], given: T) -> object:
        return step(given) if self._context is None else self._context.run(step, given)
