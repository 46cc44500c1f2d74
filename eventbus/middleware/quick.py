"""Run a listener again at once, within the same attempt, where its `Retry` says so."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from eventbus.clock import Clock
from eventbus.correlation import Handled, Scope, current_scope, entered
from eventbus.middleware.base import CallNext, Context
from eventbus.retry import Retry

__all__ = ("Quick",)


class Quick:
    """Call the rest of the chain up to ``retry.quick`` times more before the attempt has failed.

    All tries are one attempt: they share its number, its time limit and its slot, and only the
    last one's exception is told. What an earlier try has emitted isn't emitted twice.
    """

    def __init__(self, retry: Retry, clock: Clock, chance: Callable[[], float]) -> None:
        self._retry = retry
        self._clock = clock
        self._chance = chance

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain until it succeeds or isn't worth another quick try."""
        scope = current_scope()
        tries = 0
        while True:
            tries += 1
            try:
                with entered(_anew(scope)):
                    await call_next(context)
            except Exception as exc:
                delay = self._retry.quick_delay(exc, tries, self._chance())
                if delay is None or _is_cancelled():
                    raise
                await self._clock.sleep(delay)
            else:
                return


def _anew(scope: Scope) -> Scope:
    """Return the scope of another run: it counts identical emits from the first one again."""
    handled = scope.handled
    if handled is None:
        return scope
    return replace(scope, handled=Handled(handled.id, handled.durable, handled.redrive))


def _is_cancelled() -> bool:
    """Tell whether this is the end: at the time limit, or because the process stops."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
