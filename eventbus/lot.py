"""`Lot`: many emits, each on its way before the answer to the one before."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeAlias

from eventbus.drivers.pipelined import Pipelined, Publication
from eventbus.drivers.receipt import Receipt
from eventbus.duplicates import accepted
from eventbus.envelope import Envelope, Message
from eventbus.event import Event
from eventbus.telling import Telling
from eventbus.unresolved import Unresolved

__all__ = ("LEAST", "Lot", "Made", "Result")

LEAST = 16
"""Events from which on it is worth it."""
AHEAD = 512
"""How many are on their way at once."""

Made: TypeAlias = Callable[[Event], tuple[Envelope, Message]]
Result: TypeAlias = Receipt | Exception | None


_Begun: TypeAlias = tuple[int, Envelope, float, Publication]
"""Its number, what it is, when it began, and its message on the way."""


class Lot:
    """The events of one `emit_many`, outside of listeners and transactions."""

    def __init__(self, driver: Pipelined, telling: Telling, unresolved: Unresolved) -> None:
        self._driver = driver
        self._name = driver.name
        self._telling = telling
        self._unresolved = unresolved
        self._begun: deque[_Begun] = deque()
        self._ending: dict[int, _Begun] = {}
        self._group = asyncio.TaskGroup()
        self._broken: Exception | None = None
        """What the events themselves raised."""
        self.results: list[Result] = []
        """Of each event, in their order: its receipt, or what its emit raised."""

    async def run(self, events: Iterator[Event], made: Made) -> list[Event]:
        """Emit, up to an event that can't go this way now; return that one.

        There is no connection, too much waits for it, or it goes through another driver. What
        ``events`` raises is raised once those before have ended.
        """
        try:
            async with self._group:
                left = await self._send(events, made)
                while self._begun:
                    await self._end_oldest()
        finally:
            # It was cancelled, perhaps before a task that was to end one has run at all.
            for _, envelope, _, publication in (*self._begun, *self._ending.values()):
                self._unresolved.keep(envelope.event, envelope.id, None)
                publication.abandon()
        if self._broken is not None:
            raise self._broken
        return left

    async def _send(self, events: Iterator[Event], made: Made) -> list[Event]:
        begun = self._begun
        for event in self._taken(events):
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

    def _taken(self, events: Iterator[Event]) -> Iterator[Event]:
        try:
            for event in events:  # noqa: UP028 - "yield from" would end them when this ends
                yield event
        except Exception as exc:  # noqa: BLE001 - raised later
            self._broken = exc

    def _begin(self, event: Event, made: Made) -> bool:
        """Send an event, unless it would have to wait; one that can't be sent has failed."""
        number, started = len(self.results), self._telling.now()
        try:
            envelope, message = made(event)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self.results.append(exc)
            return True
        try:
            publication = self._driver.begin(message)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self.results.append(None)
            self._failed(number, envelope, exc, started)
            return True
        if publication is None:
            return False
        self.results.append(None)
        self._begun.append((number, envelope, started, publication))
        return True

    async def _end_oldest(self) -> None:
        """Wait for the answer to the oldest, and end it."""
        publication = self._begun[0][3]
        if not publication.is_answered:
            await publication.answered()
        number, envelope, started, _ = oldest = self._begun.popleft()
        receipt = self._driver.receipt_of(publication)
        if receipt is None:
            self._ending[number] = oldest
            self._group.create_task(self._end(oldest))
        else:
            self.results[number] = receipt
            self._telling.stored(self._name, envelope, receipt, started)

    async def _end(self, begun: _Begun) -> None:
        """End one whose answer isn't the usual one, or never came; the others go on."""
        number, envelope, started, publication = begun
        driver = self._driver
        try:
            receipt = await driver.end(publication)
            if receipt.duplicate:
                receipt = await accepted(driver, envelope, receipt, fresh=True)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self._unresolved.consider(exc, envelope.event, envelope.id, None)
            self._failed(number, envelope, exc, started)
        else:
            self.results[number] = receipt
            self._telling.stored(self._name, envelope, receipt, started)
        del self._ending[number]

    def _failed(self, number: int, envelope: Envelope, error: Exception, started: float) -> None:
        self.results[number] = error
        self._telling.failed(self._name, envelope, error, started)


def _goes_along(event: Event) -> bool:
    """Tell whether an event goes to the service's own driver like any other."""
    spec = event.event_spec
    return spec is None or (spec.driver is None and spec.kind != "state")
