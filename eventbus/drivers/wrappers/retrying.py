"""`Retrying`: hands an event over again where another try may succeed."""

from collections.abc import Callable
from random import random

from typing_extensions import override

from eventbus.clock import Clock, SystemClock
from eventbus.drivers.base import Driver, Receipt
from eventbus.drivers.wrappers.wrapper import Send, Wrapper
from eventbus.errors import DeclarationError, DriverError
from eventbus.retry import Retry

__all__ = ("Retrying",)


class Retrying(Wrapper):
    """Tries again what the driver inside refuses with an error that is `retryable`.

    An `EmitUnknown` is tried again too: under the same id a driver that `stores` keeps it once.
    Around `sync` only what isn't a listener's own exception is, and all listeners run again.
    The last error is raised; cancelling the emit ends the wait.

    Args:
        inner: The driver.
        retry: How often and when; its rules are those of listeners, and not asked here.
        clock: What it waits with.
        chance: A number in [0, 1) for the jitter.
    """

    def __init__(
        self,
        inner: Driver,
        retry: Retry | None = None,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random,
    ) -> None:
        super().__init__(inner)
        self._retry = Retry(attempts=3, start=0.1, cap=5) if retry is None else retry
        if self._retry.rules or self._retry.quick:
            raise DeclarationError("Retrying(retry=): rules and quick= are for listeners")
        self._clock = clock or SystemClock()
        self._chance = chance

    @override
    async def send(self, send: Send, subject: str) -> Receipt:
        """Hand an event over, as often as it takes and the policy allows."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await send()
            except DriverError as exc:
                if not exc.retryable or attempt >= self._retry.attempts:
                    raise
            await self._clock.sleep(self._retry.delay(attempt, self._chance()))
