"""Let only those events through to a listener that its ``when=`` wants."""

from collections.abc import Callable
from dataclasses import dataclass

from eventbus.errors import Discard
from eventbus.event import Event
from eventbus.middleware.base import CallNext, Context

__all__ = ("When",)


@dataclass(frozen=True, slots=True)
class When:
    """Drop what ``wanted`` says no to; what it raises counts as raised by the listener."""

    wanted: Callable[[Event], bool]

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain where the event is wanted."""
        if not self.wanted(context.event):
            raise Discard("when= said no")
        await call_next(context)
