"""Keep the lease of every delivery in hand: a sign of life at a third of its ack wait."""

import asyncio
from dataclasses import dataclass

from eventbus.clock import Clock
from eventbus.delivery import Delivery

__all__ = ("Heartbeat",)

BEATS = 3
"""Heartbeats for each ack wait, so that two may be lost."""


@dataclass(slots=True)
class _Held:
    delivery: Delivery
    every: float
    due: float


class Heartbeat:
    """One loop for all deliveries of a worker.

    It has no cap of its own: dispatch ends every run at the listener's timeout, and a settled
    delivery is released.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[int, _Held] = {}
        self._shortest = 1.0
        self._some = asyncio.Event()

    def hold(self, delivery: Delivery, ack_wait: float) -> None:
        """Begin with a delivery that was received now."""
        every = ack_wait / BEATS
        self._shortest = min(self._shortest, every)
        self._held[id(delivery)] = _Held(delivery, every, self._clock.monotonic() + every)
        self._some.set()

    def release(self, delivery: Delivery) -> None:
        """End with a delivery."""
        self._held.pop(id(delivery), None)

    async def run(self) -> None:
        """Beat until cancelled; where nothing is held, no time passes here."""
        while True:
            if not self._held:
                self._some.clear()
                await self._some.wait()
            await self._clock.sleep(self._shortest / 2)
            now = self._clock.monotonic()
            for held in list(self._held.values()):
                if now >= held.due:
                    held.due = now + held.every
                    await held.delivery.in_progress()
