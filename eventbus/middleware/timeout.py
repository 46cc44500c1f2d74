"""End a listener's run at its time limit."""

import asyncio
import inspect
from collections.abc import Awaitable

from eventbus.driving import begin
from eventbus.errors import ListenerTimeoutError
from eventbus.middleware.base import CallNext, Context

__all__ = ("Timeout",)


class Timeout:
    """Cancel the rest of the chain after ``limit`` seconds and raise `ListenerTimeoutError`.

    A `TimeoutError` of the listener's own passes through unchanged.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain within the limit."""
        waiting = self.begin(call_next(context), context.listener)
        if waiting is not None:
            await waiting

    def begin(self, rest: Awaitable[object], listener: str) -> Awaitable[None] | None:
        """Begin something within the limit, for a listener.

        Return what is left of it, to be awaited at once; None where it has ended, because it
        never had to wait. Raises what it raises.
        """
        began = asyncio.get_running_loop().time()
        if inspect.iscoroutine(rest):
            # What never waits can't be ended either, and needs no timer.
            waiting = begin(rest)
            if waiting is None:
                return None
            rest = waiting
        return self.wait(rest, began, listener)

    async def wait(self, rest: Awaitable[object], began: float, listener: str) -> None:
        """Await what began at a time of the event loop, for as long as it may take."""
        scope = asyncio.timeout_at(began + self._limit)
        try:
            async with scope:
                await rest
        except TimeoutError as exc:
            if scope.expired():
                raise ListenerTimeoutError(listener=listener, limit=self._limit) from exc
            raise
