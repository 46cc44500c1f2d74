"""Keep the lease of every delivery in hand: a sign of life at a third of its ack wait."""

import asyncio

from eventbus.clock import Clock
from eventbus.delivery import Delivery

__all__ = ("Heartbeat",)

BEATS = 3
"""Heartbeats for each ack wait, so that two may be lost."""


class Heartbeat:
    """One loop for all deliveries of a worker.

    It has no cap of its own: dispatch ends every run at the listener's timeout, and a settled
    delivery is released.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[Delivery, tuple[float, float]] = {}
        """How often each has to give a sign of life, and when next."""
        self._shortest = 1.0
        self._some = asyncio.Event()

    def hold(self, delivery: Delivery, ack_wait: float) -> None:
        """Begin with a delivery that was received now."""
        every = ack_wait / BEATS
        self._shortest = min(self._shortest, every)
        if not self._held:
            self._some.set()
        self._held[delivery] = every, self._clock.monotonic() + every

    def release(self, delivery: Delivery) -> None:
        """End with a delivery."""
        self._held.pop(delivery, None)

    async def run(self) -> None:
        """Beat until cancelled; where nothing is held, no time passes here."""
        while True:
            if not self._held:
                self._some.clear()
                await self._some.wait()
            await self._clock.sleep(self._shortest / 2)
            now = self._clock.monotonic()
            late = [(one, every) for one, (every, due) in self._held.items() if due <= now]
            for delivery, every in late:
                if delivery in self._held:  # else it was settled while others were told of
                    self._held[delivery] = every, now + every
                    await delivery.in_progress()
