"""`States`: what a service reads of the state events that are kept, and how it ends one."""

from collections.abc import AsyncIterator
from typing import TypeVar

from eventbus import codec
from eventbus.clock import Clock
from eventbus.drivers.abilities import KeepsStates
from eventbus.envelope import Message
from eventbus.event import Event, spec_of
from eventbus.kinds import StateDeleted, StateEvent
from eventbus.registry import Registry

__all__ = ("States",)

StateT = TypeVar("StateT", bound=StateEvent)


class States:
    """The kept states, as the classes that a service knows."""

    def __init__(self, driver: KeepsStates, registry: Registry, clock: Clock) -> None:
        self._driver = driver
        self._registry = registry
        self._clock = clock

    async def last(self, event: type[StateT], key: str) -> StateT | None:
        """Return the last state of a key; None where there is none, or it was deleted."""
        self._registry.register(event)
        message = await self._driver.state(spec_of(event).name, key)
        return None if message is None else self._read(event, message)

    async def all(self, event: type[StateT]) -> AsyncIterator[StateT]:
        """Yield the last state of each key, the one that changed last at the end."""
        self._registry.register(event)
        async for message in self._driver.states(spec_of(event).name):
            state = self._read(event, message)
            if state is not None:
                yield state

    def _read(self, event: type[StateT], message: Message) -> StateT | None:
        read: Event = codec.decode(
            message,
            spec_of(event).name,
            self._registry,
            received=self._clock.now(),
            accepts=(event,),
        ).event
        if isinstance(read, StateDeleted):
            return None
        assert isinstance(read, event), "a state is read as the class that was asked for"
        return read
