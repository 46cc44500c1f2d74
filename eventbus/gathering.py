"""`Gathering`: makes one run of a listener out of the runs of many deliveries.

Each delivery goes its own way up to here and from here on: attempts, limits and settling are its
own. The first one of a batch waits for the others and runs them all.
"""

import asyncio
from dataclasses import dataclass, field

from eventbus.batch import Batch, BatchContext, BatchHandler, in_scope
from eventbus.clock import Clock
from eventbus.correlation import Handled, Scope, current_scope, entered
from eventbus.errors import ListenerTimeoutError, Postpone
from eventbus.event import Event
from eventbus.ids import derived_id
from eventbus.middleware.base import Context
from eventbus.owner import error_of, go_on, is_cancelled

__all__ = ("Gathering",)


@dataclass(slots=True)
class _Item:
    context: Context
    scope: Scope
    error: Exception | None = None


@dataclass(slots=True)
class _Gathered:
    """The events that wait to be run together."""

    items: list[_Item] = field(default_factory=list[_Item])
    full: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Gathering:
    """The batches of one listener in one process.

    Args:
        handler: The listener.
        batch: How events are gathered.
        limit: How many batches run at once.
        timeout: Longest run of a batch.
        place: Tells this listener from others, in the ids of what it emits.
        clock: For the waiting.
    """

    def __init__(
        self,
        handler: BatchHandler,
        batch: Batch,
        *,
        limit: int,
        timeout: float,
        place: str,
        clock: Clock,
    ) -> None:
        self._handler = handler
        self._batch = batch
        self._timeout = timeout
        self._place = place
        self._clock = clock
        self._room = asyncio.Semaphore(limit)
        self._open: _Gathered | None = None

    async def handle(self, context: Context, *, alone: bool = False) -> None:
        """Handle an event together with others; raises what the listener said of this one.

        ``alone`` makes a batch of one: if the process dies of it, it was this event.
        """
        item = _Item(context, current_scope())
        if alone:
            await self._run([item])
        else:
            await self._gather(item)
        if item.error is not None:
            raise item.error

    async def _gather(self, item: _Item) -> None:
        gathered, leads = self._open, False
        if gathered is None:
            gathered = self._open = _Gathered()
            leads = True
        gathered.items.append(item)
        if len(gathered.items) >= self._batch.max:
            self._close(gathered)
        if leads:
            await self._lead(gathered)
            return
        try:
            await gathered.done.wait()
        except asyncio.CancelledError:
            if item in gathered.items:
                gathered.items.remove(item)
            raise

    def _close(self, gathered: _Gathered) -> None:
        """Let nothing more into a batch."""
        if self._open is gathered:
            self._open = None
        gathered.full.set()

    async def _lead(self, gathered: _Gathered) -> None:
        """Wait until a batch is full or waits long enough, and run it."""
        items: list[_Item] = []
        try:
            await self._wait(gathered)
            async with self._room:  # still open: what comes while others run belongs to it
                self._close(gathered)
                items = gathered.items
                gathered.items = []
                await self._run(items)
        except asyncio.CancelledError:
            # Whoever led it was stopped; for the others it was no attempt.
            for item in (*items, *gathered.items):
                item.error = Postpone(0)
            raise
        finally:
            self._close(gathered)
            gathered.done.set()

    async def _wait(self, gathered: _Gathered) -> None:
        async with asyncio.TaskGroup() as group:
            ends = {
                group.create_task(self._clock.sleep(self._batch.wait)),
                group.create_task(gathered.full.wait()),
            }
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for one in ends:
                one.cancel()

    async def _run(self, items: list[_Item]) -> None:
        contexts = tuple(in_scope(one.context, one.scope) for one in items)
        batch: BatchContext[Event] = BatchContext(contexts)
        error = await self._raised(contexts, batch)
        for number, item in enumerate(items):
            item.error = batch.failures.get(number, error)

    async def _raised(
        self, contexts: tuple[Context, ...], batch: BatchContext[Event]
    ) -> Exception | None:
        scope = asyncio.timeout(self._timeout)
        try:
            with entered(self._scope(contexts)):
                async with scope:
                    await self._handler([one.event for one in contexts], batch)
        except TimeoutError as exc:
            if scope.expired():
                return ListenerTimeoutError(listener=contexts[0].listener, limit=self._timeout)
            return exc
        except Exception as exc:  # noqa: BLE001 - raised again in the task of each event
            return exc
        except asyncio.CancelledError as exc:
            if is_cancelled():
                raise
            await go_on()
            return error_of(exc, contexts[0].listener)
        return None

    def _scope(self, contexts: tuple[Context, ...]) -> Scope:
        """Return what an emit inherits that belongs to no single event of a batch."""
        correlations = {one.correlation_id for one in contexts}
        return Scope(
            correlation_id=correlations.pop() if len(correlations) == 1 else None,
            causation_id=contexts[0].id if len(contexts) == 1 else None,
            handled=Handled(derived_id(*(one.id for one in contexts)), self._place),
        )
