"""`Lot`: many emits, each on its way before the answer to the one before."""

import asyncio
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeAlias

from typing_extensions import TypeIs

from eventbus.correlation import Handled
from eventbus.drivers.receipt import Receipt
from eventbus.event import Event
from eventbus.middleware.base import EmitOptions
from eventbus.pipeline import Begun, Pipeline, goes_along
from eventbus.unresolved import Unresolved

__all__ = ("LEAST", "Asked", "Lot", "Result", "is_event")

_NO_OPTIONS: Final[EmitOptions] = {}
LEAST: Final = 16
"""Events from which on it is worth it."""
AHEAD: Final = 256
"""How many are on their way at once, and how many ask the server more than that.

With more, what is on its way no longer fits the processor's cache; with less, the server waits.
"""

Result: TypeAlias = Receipt | Exception | None


class Asked:
    """What one `emit_many` is asked for, and what has become of it.

    As a context manager: where the call ends without its receipts, the ids of those that are
    stored are kept, so that emitting the same objects again stores none of them twice (P2).
    """

    def __init__(self, unresolved: Unresolved, run: Handled | None) -> None:
        self._unresolved = unresolved
        self._run = run
        self._events: list[weakref.ref[Event] | None] = []
        self._broken: Exception | None = None
        """What the events themselves raised."""
        self.results: list[Result] = []
        """Of each event that was begun: its receipt, or what its emit raised."""

    def __enter__(self) -> Self:
        """Begin the call."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        """Keep the ids of what is stored, unless the caller learns of it."""
        if error is None:
            return
        for reference, result in zip(self._events, self.results, strict=True):
            event = None if reference is None else reference()
            if event is not None and isinstance(result, Receipt):
                self._unresolved.keep(event, result.id, self._run)

    def taken(self, events: Iterable[object]) -> Iterator[object]:
        """Yield the events; what they raise ends them, and is raised by `check`."""
        try:
            for event in events:  # noqa: UP028 - "yield from" would end them when this ends
                yield event
        except Exception as exc:  # noqa: BLE001 - raised later
            self._broken = exc

    def begin(self, event: Event) -> int:
        """Return the number of the next event."""
        self.results.append(None)
        self._events.append(weakref.ref(event))
        return len(self.results) - 1

    def refuse(self, given: object) -> None:
        """Have what is no event fail alone."""
        self.results.append(TypeError(f"emit_many() takes events, not {given!r}"))
        self._events.append(None)

    def check(self) -> None:
        """Raise what failed, and what the events themselves raised.

        Raises:
            ExceptionGroup: What the emits that failed raised, then what the events did.
            Exception: What the events raised, where no emit failed.
        """
        errors = [one for one in self.results if isinstance(one, Exception)]
        said = f"{len(errors)} of {len(self.results)} events failed"
        if self._broken is None and errors:
            raise ExceptionGroup(said, errors)
        if self._broken is not None and errors:
            raise ExceptionGroup(f"{said}, and what they come from", [*errors, self._broken])
        if self._broken is not None:
            raise self._broken


class Lot:
    """The events of one `emit_many`, outside of listeners and transactions."""

    def __init__(self, pipeline: Pipeline, asked: Asked) -> None:
        self._pipeline = pipeline
        self._begun: deque[tuple[int, Begun]] = deque()
        """Those on their way, with their numbers."""
        self._ending: dict[int, Begun] = {}
        """Those that a task is to end, and that hasn't begun with it."""
        self._room = asyncio.Semaphore(AHEAD)
        self._group = asyncio.TaskGroup()
        self._asked = asked
        self._results = asked.results

    async def run(self, events: Iterator[object]) -> list[Event]:
        """Emit, up to an event that can't go this way now; return that one.

        There is no connection, too much waits for it, or it goes through another driver.
        """
        try:
            async with self._group:
                left = await self._send(events)
                while self._begun:
                    await self._end_oldest()
        finally:
            # It was cancelled, perhaps before a task that was to end one has run at all.
            for begun in (*(one for _, one in self._begun), *self._ending.values()):
                begun.abandon()
        return left

    async def _send(self, events: Iterator[object]) -> list[Event]:
        on_way = self._begun
        for event in events:
            if not is_event(event):
                self._asked.refuse(event)
                continue
            if not goes_along(event, _NO_OPTIONS):
                return [event]
            # One is ended for each that is begun, so that no garbage piles up between.
            if len(on_way) >= AHEAD and not self._take_oldest():
                await self._end_oldest()
            while not self._begin(event):
                if not on_way:
                    return [event]
                await self._end_oldest()
        return []

    def _begin(self, event: Event) -> bool:
        """Send an event, unless it would have to wait; one that can't be sent has failed."""
        try:
            begun = self._pipeline.begin(event, _NO_OPTIONS)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self._results[self._asked.begin(event)] = exc
            return True
        if begun is None or begun.answer is None:
            if begun is not None:
                begun.undo()
            return False
        self._begun.append((self._asked.begin(event), begun))
        return True

    def _take_oldest(self) -> bool:
        """End the oldest if its answer is there, and the usual one; most are."""
        number, oldest = self._begun[0]
        answer = oldest.answer
        if answer is not None and not answer.done():
            return False
        receipt = oldest.receipt()
        if receipt is None:
            return False
        self._begun.popleft()
        self._results[number] = receipt
        return True

    async def _end_oldest(self) -> None:
        """Wait for the answer to the oldest, and end it."""
        answer = self._begun[0][1].answer
        if answer is not None and not answer.done():
            with suppress(Exception):  # `end` says what it means
                await answer
        if not self._take_oldest():
            number, oldest = self._begun.popleft()
            self._ending[number] = oldest
            await self._room.acquire()
            self._group.create_task(self._end(number))

    async def _end(self, number: int) -> None:
        """End one whose answer isn't the usual one, or never came; the others go on."""
        begun = self._ending.pop(number)
        try:
            self._results[number] = await begun.end()
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self._results[number] = exc
        self._room.release()


def is_event(given: object) -> TypeIs[Event]:
    """Tell whether something is an event; several times as quick as `isinstance` of a model."""
    return Event in type(given).__mro__
