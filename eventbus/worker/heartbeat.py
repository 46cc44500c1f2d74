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
        self._now = clock.monotonic
        self._held: dict[float, dict[Delivery, float]] = {}
        """When each was last heard of, by how often that has to be."""
        self._wait = -1.0
        self._last: dict[Delivery, float] = {}
        self._shortest = 1.0
        self._some = asyncio.Event()

    def hold(self, delivery: Delivery, ack_wait: float) -> None:
        """Begin with a delivery that was received now."""
        held = self._last if ack_wait == self._wait else self._by(ack_wait)
        if not held:
            self._some.set()
        held[delivery] = self._now()

    def release(self, delivery: Delivery, ack_wait: float) -> None:
        """End with a delivery."""
        held = self._last if ack_wait == self._wait else self._by(ack_wait)
        held.pop(delivery, None)

    def _by(self, ack_wait: float) -> dict[Delivery, float]:
        """Return those of an ack wait, which are the next one's too nearly always."""
        every = ack_wait / BEATS
        held = self._held.get(every)
        if held is None:
            held = self._held[every] = {}
            self._shortest = min(self._shortest, every)
        self._wait, self._last = ack_wait, held
        return held

    async def run(self) -> None:
        """Beat until cancelled; where nothing is held, no time passes here."""
        while True:
            if not any(self._held.values()):
                self._some.clear()
                await self._some.wait()
            await self._clock.sleep(self._shortest / 2)
            now = self._clock.monotonic()
            for every, held in list(self._held.items()):
                for delivery in [one for one, heard in held.items() if now >= heard + every]:
                    if delivery in held:  # else it was settled while others were told of
                        held[delivery] = now
                        await delivery.in_progress()
