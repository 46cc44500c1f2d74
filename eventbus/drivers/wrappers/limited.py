"""`Limited`: hands over no more events at once than it is told."""

import asyncio
from contextvars import ContextVar

from typing_extensions import override

from eventbus.drivers.base import Driver, Receipt
from eventbus.drivers.wrappers.wrapper import Send, Wrapper
from eventbus.errors import DeclarationError

__all__ = ("Limited",)


class Limited(Wrapper):
    """Lets ``most`` events be handed over at once; the others wait, first come, first served.

    Around `sync`, what a listener emits has the place of the event it handles: it would wait for
    itself.
    """

    def __init__(self, inner: Driver, most: int) -> None:
        super().__init__(inner)
        if most < 1:
            raise DeclarationError(f"Limited(most={most}) must be at least 1")
        self._places = asyncio.Semaphore(most)
        self._inside: ContextVar[bool] = ContextVar("eventbus_limited", default=False)

    @override
    async def send(self, send: Send, subject: str) -> Receipt:
        """Hand an event over once there is a place."""
        if self._inside.get():
            return await send()
        async with self._places:
            token = self._inside.set(True)
            try:
                return await send()
            finally:
                self._inside.reset(token)
