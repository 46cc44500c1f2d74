"""`Batch`: how many events a listener takes at once; `BatchContext`: what it may know and say."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, TypeAlias, TypeVar, cast

from eventbus.correlation import Scope, entered
from eventbus.drivers.base import Receipt
from eventbus.duration import Duration, seconds
from eventbus.errors import DeclarationError
from eventbus.event import Event
from eventbus.middleware.base import Context, Emit

__all__ = ("Batch", "BatchContext", "BatchHandler", "in_scope")

ItemT = TypeVar("ItemT", bound=Event)
LARGEST = 1000
LONGEST = 60.0


@dataclass(frozen=True)
class Batch:
    """How a listener's events are gathered: up to ``max``, for ``max_wait`` from the first one.

    Raises:
        DeclarationError: A value makes no sense.
    """

    max: int = 100
    """At most so many, 1,000 where it is most."""
    max_wait: Duration = 0.5
    """How long the first one waits for others, at most; a minute where it is longest."""
    wait: float = field(init=False, repr=False, compare=False)
    """``max_wait`` in seconds."""

    def __post_init__(self) -> None:
        """Check the values and keep the duration in seconds."""
        if type(self.max) is not int or not 1 <= self.max <= LARGEST:
            raise DeclarationError(f"Batch(max={self.max!r}) must be from 1 to {LARGEST}")
        try:
            wait = seconds(self.max_wait)
        except ValueError as exc:
            raise DeclarationError(f"Batch(max_wait=): {exc}") from exc
        if wait > LONGEST:
            raise DeclarationError(
                f"Batch(max_wait={self.max_wait!r}) must be at most a minute: the events are in "
                "hand meanwhile"
            )
        object.__setattr__(self, "wait", wait)


class BatchContext(Generic[ItemT]):
    """What a listener of batches may know of its events, and how it says which ones failed.

    What `fail` isn't called for is acknowledged once the listener returns. Where it raises, all
    have failed.
    """

    def __init__(self, items: tuple[Context, ...]) -> None:
        self.items = items
        """The context of each event, in the order of the list; what an item's ``emit`` emits
        inherits its correlation and names it as the cause."""
        self._failures: dict[int, Exception] = {}

    def fail(self, item: ItemT | int, error: Exception) -> None:
        """Take note that one event failed: of this list, or its number in it, from 0.

        ``error`` decides about it as if the listener had raised it for this event alone: by the
        `Retry`, and by `RetryLater`, `Reject` and `Discard`.

        Raises:
            ValueError: It isn't in the list.
        """
        number = item if isinstance(item, int) else self._number(item)
        if not 0 <= number < len(self.items):
            raise ValueError(f"there is no event {number} in a batch of {len(self.items)}")
        self._failures[number] = error

    @property
    def failures(self) -> Mapping[int, Exception]:
        """What `fail` was told, by number."""
        return MappingProxyType(self._failures)

    def context(self, item: ItemT) -> Context:
        """Return the context of an event of the list.

        Raises:
            ValueError: It isn't in the list.
        """
        return self.items[self._number(item)]

    def _number(self, item: Event) -> int:
        for number, one in enumerate(self.items):
            if one.event is item:
                return number
        raise ValueError(f"this {type(item).__name__} isn't in the batch; give one of its list")


BatchHandler: TypeAlias = Callable[[list[Event], BatchContext[Event]], Awaitable[None]]
"""A listener of batches, called the one way that dispatch knows."""


def in_scope(context: Context, scope: Scope) -> Context:
    """Return a context whose ``emit`` emits in the scope of its event, wherever it is called."""
    emit = context.emit

    async def emitting(*args: object, **options: object) -> Receipt:
        with entered(scope):
            return await cast("Callable[..., Awaitable[Receipt]]", emit)(*args, **options)

    return replace(context, emit=cast("Emit", emitting))
