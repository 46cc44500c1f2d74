"""`Valve`: turns a consumer off, down to one, and on again as breaker and limits say."""

import asyncio

from eventbus.clock import Clock
from eventbus.drivers.base import Consumer
from eventbus.middleware.breaker import BreakerState, Circuit

__all__ = ("Valve",)


class Valve:
    """Obeys the breaker and the limits of a listener; `run` it as long as the consumer pulls."""

    def __init__(
        self, circuit: Circuit | None, consumer: Consumer, slots: int, clock: Clock
    ) -> None:
        self._circuit = circuit
        self._consumer = consumer
        self._slots = {
            BreakerState.CLOSED: slots,
            BreakerState.OPEN: 0,
            BreakerState.PROBING: 1,
        }
        self._clock = clock
        self._state = BreakerState.CLOSED
        self._until = 0.0
        self._opened = asyncio.Event()
        self._paused = asyncio.Event()
        if circuit is not None:
            circuit.watch(self._changed)
            self._changed(circuit.state, "")

    def pause(self, seconds: float) -> None:
        """Pull nothing for so long, and no shorter than asked before."""
        self._until = max(self._until, self._clock.monotonic() + seconds)
        self._paused.set()
        self._apply()

    async def run(self) -> None:
        """Probe each time the breaker has been open for its pause, and end pauses."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._end_pauses())
            if self._circuit is not None:
                group.create_task(self._probe(self._circuit))

    async def _probe(self, circuit: Circuit) -> None:
        while True:
            await self._opened.wait()
            self._opened.clear()
            await self._clock.sleep(circuit.breaker.pause)
            circuit.probe()

    async def _end_pauses(self) -> None:
        while True:
            await self._paused.wait()
            self._paused.clear()
            while self._is_paused:
                await self._clock.sleep(self._until - self._clock.monotonic())
            self._apply()

    @property
    def _is_paused(self) -> bool:
        return self._clock.monotonic() < self._until

    def _changed(self, state: BreakerState, _: str) -> None:
        self._state = state
        self._apply()
        if state is BreakerState.OPEN:
            self._opened.set()

    def _apply(self) -> None:
        self._consumer.limit(0 if self._is_paused else self._slots[self._state])
