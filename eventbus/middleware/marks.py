"""`Marks`: an inbox for listeners without a database, in what the driver keeps for limits."""

from dataclasses import replace

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
        durable: The listener's.
        again: The durable of a replay that handles also what is marked, each once.
    """

    def __init__(self, keep: float, durable: str, *, again: str = "") -> None:
        self.by = None
        self._keep = keep
        self._durable = durable
        self._run = again.encode() or b"1"
        self._again = bool(again)

    @override
    def bind(self, limits: Limits) -> Middleware:
        async def skip_marked(context: Context, call_next: CallNext) -> None:
            place = replace(limits, durable=self._durable).place("inbox", context.id)
            found = await limits.log.read(place)
            if found is not None and (not self._again or found.body == self._run):
                raise AlreadyHandled
            await call_next(context)
            over = 0 if found is None else found.revision
            await limits.log.write(place, self._run, over=over, keep=self._keep)

        return skip_marked
