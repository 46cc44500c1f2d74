"""What some drivers do besides: run listeners at once, store in bulk, keep states."""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Protocol, runtime_checkable

from typing_extensions import TypeIs

from eventbus import headers as h
from eventbus.drivers.base import ConsumerSpec, Driver
from eventbus.drivers.receipt import Receipt
from eventbus.envelope import Envelope, Message
from eventbus.subject import Subjects

__all__ = (
    "Immediate",
    "InBulk",
    "KeepsStates",
    "Local",
    "is_immediate",
    "is_state",
    "keeps_states",
)


class Local(Protocol):
    """A listener of this process, as an immediate driver runs it: within the emit.

    Both return what the listener raised, and raise nothing but for cancellation.
    """

    def handle(self, envelope: Envelope) -> Coroutine[object, object, Exception | None]:
        """Run it on an event that was emitted in this process."""
        ...

    async def receive(self, message: Message) -> Exception | None:
        """Run it on an event that comes as a message."""
        ...


class Immediate(Driver, Protocol):
    """A driver with `Features.immediate`: it knows the listeners themselves."""

    def attach(self, consumer: ConsumerSpec, listener: Local) -> Callable[[], None]:
        """Run a listener on the events that its consumer names; return what ends that."""
        ...

    async def hand_over(self, envelope: Envelope) -> Receipt:
        """Run the listeners of an event, and return once they have ended.

        Raises:
            Exception: What the one that failed raised; an ExceptionGroup of several.
        """
        ...


def is_immediate(driver: Driver) -> TypeIs[Immediate]:
    """Tell whether a driver runs listeners before its publish returns."""
    return driver.features.immediate


@runtime_checkable
class InBulk(Protocol):
    """A driver that also has a faster way for many messages, in their order."""

    @property
    def bulk(self) -> bool:
        """Whether the server has it."""
        ...

    async def publish_in_order(self, messages: Sequence[Message]) -> int:
        """Store messages in their order; return how many of the first ones surely are stored.

        Those that are stored already under their id count, whatever they hold. Never raises what
        a server or a line does: what isn't surely stored may be published again, with the same
        id, and then says why it can't. Cancelling it leaves the outcome unknown.
        """
        ...


class KeepsStates(Driver, Protocol):
    """A driver with `Features.states`: it keeps the last state event of each key.

    What reads raises `DriverError` where the server can't say now.
    """

    async def state(self, name: str, key: str) -> Message | None:
        """Return the last state event of a key as it was published; None where there is none."""
        ...

    def states(self, name: str) -> AsyncIterator[Message]:
        """Yield the last state event of each key."""
        ...


def keeps_states(driver: Driver) -> TypeIs[KeepsStates]:
    """Tell whether a driver keeps state events."""
    return driver.features.states


def is_state(message: Message, subjects: Subjects) -> bool:
    """Tell whether a message is a state event on its way to the listeners."""
    headers = message.headers
    kind = headers.shared(h.KIND) if type(headers) is h.Headers else headers.get(h.KIND)
    return kind == "state" and message.subject.startswith(subjects.prefix)
