"""End a listener's run at its time limit."""

import asyncio

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
        scope = asyncio.timeout(self._limit)
        try:
            async with scope:
                await call_next(context)
        except TimeoutError as exc:
            if scope.expired():
                raise ListenerTimeoutError(listener=context.listener, limit=self._limit) from exc
            raise
