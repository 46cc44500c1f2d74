"""`Valve`: turns a consumer off, down to one, and on again as the listener's breaker says."""

import asyncio

from eventbus.clock import Clock
from eventbus.drivers.base import Consumer
from eventbus.middleware.breaker import BreakerState, Circuit

__all__ = ("Valve",)


class Valve:
    """Obeys one breaker; `run` it as long as the consumer pulls."""

    def __init__(self, circuit: Circuit, consumer: Consumer, slots: int, clock: Clock) -> None:
        self._circuit = circuit
        self._consumer = consumer
        self._slots = {
            BreakerState.CLOSED: slots,
            BreakerState.OPEN: 0,
            BreakerState.PROBING: 1,
        }
        self._clock = clock
        self._opened = asyncio.Event()
        circuit.watch(self._changed)
        self._changed(circuit.state, "")

    async def run(self) -> None:
        """Probe each time the breaker has been open for its pause, until cancelled."""
        while True:
            await self._opened.wait()
            self._opened.clear()
            await self._clock.sleep(self._circuit.breaker.pause)
            self._circuit.probe()

    def _changed(self, state: BreakerState, _: str) -> None:
        self._consumer.limit(self._slots[state])
        if state is BreakerState.OPEN:
            self._opened.set()
