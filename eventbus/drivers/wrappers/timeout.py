"""`Timeout`: ends the wait for a driver that doesn't answer."""

import asyncio

from typing_extensions import override

from eventbus.drivers.base import Driver, Receipt
from eventbus.drivers.wrappers.wrapper import Send, Wrapper
from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError, EmitUnknown

__all__ = ("Timeout",)


class Timeout(Wrapper):
    """Raises `EmitUnknown` where an event isn't handed over within ``limit``.

    Nobody knows then whether it is stored, so that `Fallback` doesn't hand it to another driver.
    Around `sync` it ends the listener that runs.
    """

    def __init__(self, inner: Driver, limit: Duration) -> None:
        super().__init__(inner)
        self._limit = seconds(limit)
        if not self._limit:
            raise DeclarationError(f"Timeout(limit={limit!r}) leaves the driver no time")

    @override
    async def send(self, send: Send, subject: str) -> Receipt:
        """Hand an event over within the limit."""
        scope = asyncio.timeout(self._limit)
        try:
            async with scope:
                return await send()
        except TimeoutError as exc:
            if not scope.expired():
                raise
            raise EmitUnknown(name=subject, id="", after=self._limit, tries=1) from exc
