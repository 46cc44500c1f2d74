"""`Marks`: an inbox for listeners without a database, in what the driver keeps for limits."""

from typing_extensions import override

from eventbus.errors import AlreadyHandled
from eventbus.limits import Limits
from eventbus.middleware.base import CallNext, Context, Middleware
from eventbus.middleware.limit import Limit

__all__ = ("Marks",)


class Marks(Limit):
    """Skips an event that the listener has handled before, by a mark that is written afterwards.

    Weaker than an inbox in a database: a crash between the listener's last effect and the mark,
    or two runs at the same time, repeat the effects. A mark that can't be written fails the run.

    Args:
        keep: Seconds for which a mark is kept, at least.
    """

    def __init__(self, keep: float) -> None:
        self.by = None
        self._keep = keep

    @override
    def bind(self, limits: Limits) -> Middleware:
        async def skip_marked(context: Context, call_next: CallNext) -> None:
            place = limits.place("inbox", context.id)
            if await limits.log.read(place) is not None:
                raise AlreadyHandled
            await call_next(context)
            await limits.log.write(place, b"1", over=0, keep=self._keep)

        return skip_marked
