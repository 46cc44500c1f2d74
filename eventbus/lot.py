"""`Lot`: many emits, each on its way before the answer to the one before."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
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
        self._telling = telling
        self._unresolved = unresolved
        self._begun: deque[_Begun] = deque()
        self._ending: dict[int, _Begun] = {}
        self._group = asyncio.TaskGroup()
        self.results: list[Result] = []
        """Of each event, in their order: its receipt, or what its emit raised."""

    async def run(self, events: Sequence[Event], made: Made) -> int:
        """Emit; return how many of the first ones have ended.

        The others can't go this way now: there is no connection, or too much waits for it.
        """
        self.results += [None] * len(events)
        begun = self._begun
        try:
            async with self._group:
                for number, event in enumerate(events):
                    # One is ended for each that is begun, so that no garbage piles up between.
                    if len(begun) >= AHEAD:
                        await self._end_oldest()
                    while not self._begin(number, event, made):
                        if not begun:
                            return number
                        await self._end_oldest()
                while begun:
                    await self._end_oldest()
        finally:
            # It was cancelled, perhaps before a task that was to end one has run at all.
            for _, envelope, _, publication in (*begun, *self._ending.values()):
                self._unresolved.keep(envelope.event, envelope.id, None)
                publication.abandon()
        return len(events)

    def _begin(self, number: int, event: Event, made: Made) -> bool:
        """Send an event, unless it would have to wait; one that can't be sent has failed."""
        try:
            envelope, message = made(event)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self.results[number] = exc
            return True
        started = self._telling.now()
        try:
            publication = self._driver.begin(message)
        except Exception as exc:  # noqa: BLE001 - it fails alone
            self._failed(number, envelope, exc, started)
            return True
        if publication is not None:
            self._begun.append((number, envelope, started, publication))
        return publication is not None

    async def _end_oldest(self) -> None:
        """Wait for the answer to the oldest, and end it."""
        publication = self._begun[0][3]
        if not publication.is_answered:
            await publication.answered()
        oldest = self._begun.popleft()
        receipt = self._driver.receipt_of(publication)
        if receipt is None:
            self._ending[oldest[0]] = oldest
            self._group.create_task(self._end(oldest))
        else:
            number, envelope, started, _ = oldest
            self.results[number] = receipt
            self._telling.stored(self._driver.name, envelope, receipt, started)

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
            self._telling.stored(driver.name, envelope, receipt, started)
        del self._ending[number]

    def _failed(self, number: int, envelope: Envelope, error: Exception, started: float) -> None:
        self.results[number] = error
        self._telling.failed(self._driver.name, envelope, error, started)
