"""`Gauges`: tells every few seconds how far the durables of this process's listeners are."""

from collections.abc import Callable, Sequence

from eventbus.clock import Clock
from eventbus.drivers.base import Driver
from eventbus.drivers.room import DurableState
from eventbus.errors import EventBusError, NotAuthorizedError
from eventbus.subscription import Subscription
from eventbus.telemetry.conditions import DurableMeasured
from eventbus.telemetry.signals import Observer

__all__ = ("Gauges",)

EVERY = 5.0
MOST = 50
"""Durables asked for in a second; with more than 250 it takes longer than 5 s to the next time."""


class Gauges:
    """Asks for each listener's durable, and gives up on those that we may not ask for."""

    def __init__(
        self,
        driver: Driver,
        subscriptions: Callable[[], Sequence[Subscription]],
        observe: Observer,
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._subscriptions = subscriptions
        self._observe = observe
        self._clock = clock
        self._denied: set[str] = set()

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            subscriptions = self._subscriptions()
            for one in subscriptions:
                if one.durable not in self._denied:
                    await self._measure(one)
            await self._clock.sleep(max(EVERY, len(subscriptions) / MOST))

    async def _measure(self, one: Subscription) -> None:
        try:
            state = await self._driver.measure(one.durable)
            oldest = await self._oldest(state) if state is not None else None
        except NotAuthorizedError:
            self._denied.add(one.durable)
        except EventBusError:
            return  # a gauge that stands still; what is wrong with the server is told elsewhere
        else:
            if state is not None:
                self._observe(DurableMeasured(one.service, one.listener, state, oldest))

    async def _oldest(self, state: DurableState) -> float | None:
        """Return the age of the oldest unread event, where we may look into the stream."""
        if self._driver.room is None or not state.unread:
            return None
        stored = await self._driver.room.oldest_unread(state)
        return None if stored is None else (self._clock.now() - stored).total_seconds()
