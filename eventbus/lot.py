"""`Lot`: many emits, each on its way before the answer to the one before."""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeAlias

from typing_extensions import TypeIs

from eventbus.correlation import Handled
from eventbus.drivers.pipelined import Pipelined, Publication
from eventbus.drivers.receipt import Receipt
from eventbus.duplicates import accepted
from eventbus.envelope import Envelope, Message
from eventbus.event import Event
from eventbus.telling import Telling
from eventbus.unresolved import Unresolved

__all__ = ("LEAST", "Asked", "Lot", "Made", "Result", "is_event")

LEAST = 16
"""Events from which on it is worth it."""
AHEAD = 512
"""How many are on their way at once, and how many ask the server more than that."""

Made: TypeAlias = Callable[[Event, str | None], tuple[Envelope, Message]]
"""Of an event, and the id that it had before."""
Result: TypeAlias = Receipt | Exception | None


_Begun: TypeAlias = tuple[int, Envelope, float, Publication, str | None]
"""Its number, what it is, when it began, its message on the way, and the id it had before."""


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

    def __init__(
        self, driver: Pipelined, telling: Telling, unresolved: Unresolved, asked: Asked
    ) -> None:
        self._driver = driver
        self._name = driver.name
        self._telling = telling
        self._unresolved = unresolved
        self._begun: deque[_Begun] = deque()
        self._ending: dict[int, _Begun] = {}
        self._room = asyncio.Semaphore(AHEAD)
        self._group = asyncio.TaskGroup()
        self._asked = asked
        self._results = asked.results

    async def run(self, events: Iterator[object], made: Made) -> list[Event]:
        """Emit, up to an event that can't go this way now; return that one.

        There is no connection, too much waits for it, or it goes through another driver.
        """
        try:
            async with self._group:
                left = await self._send(events, made)
                while self._begun:
                    await self._end_oldest()
        finally:
            # It was cancelled, perhaps before a task that was to end one has run at all.
            for _, envelope, _, publication, _ in (*self._begun, *self._ending.values()):
                self._unresolved.keep(envelope.event, envelope.id, None)
                publication.abandon()
        return left

    async def _send(self, events: Iterator[object], made: Made) -> list[Event]:
        begun = self._begun
        for event in events:
            if not is_event(event):
                self._asked.refuse(event)
                continue
            if not _goes_along(event):
                return [event]
            # One is ended for each that is begun, so that no garbage piles up between.
            if len(begun) >= AHEAD:
                await self._end_oldest()
            while not self._begin(event, made):
                if not begun:
                    return [event]
                await self._end_oldest()
        return []

    def _begin(self, event: Event, made: Made) -> bool:
        """Send an event, unless it would have to wait; one that can't be sent has failed."""
        known, started = self._unresolved.id_of(event, None), self._telling.now()
        try:
            envelope, message = made(event, known)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self._results[self._asked.begin(event)] = exc
            return True
        try:
            publication = self._driver.begin(message)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self._failed(self._asked.begin(event), envelope, exc, started)
            return True
        if publication is None:
            return False
        self._unresolved.take(event, known)
        self._begun.append((self._asked.begin(event), envelope, started, publication, known))
        return True

    async def _end_oldest(self) -> None:
        """Wait for the answer to the oldest, and end it."""
        publication = self._begun[0][3]
        if not publication.is_answered:
            await publication.answered()
        number, envelope, started, _, _ = oldest = self._begun.popleft()
        receipt = self._driver.receipt_of(publication)
        if receipt is None:
            self._ending[number] = oldest
            await self._room.acquire()
            self._group.create_task(self._end(oldest))
        else:
            self._results[number] = receipt
            self._telling.stored(self._name, envelope, receipt, started)

    async def _end(self, begun: _Begun) -> None:
        """End one whose answer isn't the usual one, or never came; the others go on."""
        number, envelope, started, publication, known = begun
        driver = self._driver
        try:
            receipt = await driver.end(publication)
            if receipt.duplicate:
                receipt = await accepted(driver, envelope, receipt, fresh=known is None)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self._unresolved.consider(exc, envelope.event, envelope.id, None, known)
            self._failed(number, envelope, exc, started)
        else:
            self._results[number] = receipt
            self._telling.stored(self._name, envelope, receipt, started)
        del self._ending[number]
        self._room.release()

    def _failed(self, number: int, envelope: Envelope, error: Exception, started: float) -> None:
        self._results[number] = error
        self._telling.failed(self._name, envelope, error, started)


def _goes_along(event: Event) -> bool:
    """Tell whether an event goes to the service's own driver like any other."""
    spec = event.event_spec
    return spec is None or (spec.driver is None and spec.kind != "state")


def is_event(given: object) -> TypeIs[Event]:
    """Tell whether something is an event; several times as quick as `isinstance` of a model."""
    return Event in type(given).__mro__
