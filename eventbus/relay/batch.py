"""One claim of rows: published in the order of their keys, and what is refused decided."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from eventbus import headers as h
from eventbus.agenda import Agenda
from eventbus.clock import Clock
from eventbus.drivers.abilities import InBulk
from eventbus.drivers.base import Driver
from eventbus.drivers.receipt import Receipt
from eventbus.errors import (
    BackpressureError,
    EmitUnknown,
    EventBusError,
    IdConflictError,
    NotConnectedError,
)
from eventbus.stores.base import Claim, Row
from eventbus.subject import Subjects
from eventbus.telemetry.outbox import Quarantined, Relayed, RelayRefused
from eventbus.telemetry.signals import Observer

__all__ = ("BULK_FROM", "TRIES", "Batch", "Relaying")

TRIES = 5
"""How often a row may be refused on its own account before it is quarantined."""
BULK_FROM = 32
"""From how many rows on they go through the bulk lane."""
_NOTHING_GOES = (NotConnectedError, EmitUnknown, BackpressureError)
"""What says nothing of the row: any other one would fare the same."""
_OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""Ids that we made. One of a caller's may be taken by another event, which the bulk lane, where
duplicates count as stored, wouldn't notice."""


@dataclass(frozen=True, slots=True)
class Relaying:
    """What the events of an outbox go through."""

    driver: Driver
    subjects: Subjects
    observe: Observer
    clock: Clock


class Batch:
    """Publishes the rows of one claim.

    Rows of one key go one after the other, and none after one that couldn't. Once the server
    takes nothing more, the rest stays for later.
    """

    def __init__(self, claim: Claim, relaying: Relaying) -> None:
        self._claim = claim
        self._driver = relaying.driver
        self._agenda = Agenda(relaying.driver, relaying.subjects)
        self._observe = relaying.observe
        self._clock = relaying.clock
        self.published = 0
        self.stopped: EventBusError | None = None
        """Why the server takes nothing now."""
        self._ended = False
        self.refused: dict[str | int, int] = {}
        """The orders of rows that were refused on their own account, with their tries."""

    async def run(self) -> None:
        """Publish; what becomes of each row is told to the claim."""
        rows = await self._in_bulk(self._claim.rows)
        chains: dict[str | int, list[Row]] = {}
        for row in rows:
            chains.setdefault(row.order, []).append(row)
        async with asyncio.TaskGroup() as group:
            for chain in chains.values():
                group.create_task(self._chain(chain))

    def end(self) -> None:
        """Begin with no other row."""
        self._ended = True

    async def _in_bulk(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Publish as many as go in one stroke, in their order, and return the others."""
        driver = self._driver
        if len(rows) < BULK_FROM or not isinstance(driver, InBulk) or not driver.bulk:
            return rows
        fit = next((n for n, row in enumerate(rows) if not _fits(row)), len(rows))
        if fit < BULK_FROM:
            return rows
        stored = await driver.publish_in_order([row.message for row in rows[:fit]])
        for row in rows[:stored]:
            self._went(row)
        return rows[stored:]

    async def _chain(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if self._ended:
                return
            try:
                receipt = await self._publish(row)
            except EventBusError as exc:
                if self._hold_up(row, exc):
                    return
            else:
                self._went(row, duplicate=receipt.duplicate)

    async def _publish(self, row: Row) -> Receipt:
        at = row.publish_at
        if at is not None:
            # Also once it is due: a try before may have stored it there, where its id is known.
            return await self._agenda.add(row.message, at=at)
        receipt = await self._driver.publish(row.message)
        if receipt.duplicate:
            await self._check(row, receipt)
        return receipt

    async def _check(self, row: Row, receipt: Receipt) -> None:
        """Refuse a duplicate that isn't this event: it would be lost without a trace."""
        stored = await self._driver.stored(receipt)
        if stored is None:
            return
        kind = h.lowered(stored.headers).get(h.TYPE, "?")
        if kind != row.name or stored.body != row.message.body:
            place = f"'{kind}' at {receipt.stream}:{receipt.sequence}"
            raise IdConflictError(name=row.name, id=receipt.id, stored=place)

    def _went(self, row: Row, *, duplicate: bool = False) -> None:
        self._claim.done(row)
        self.published += 1
        waited = (self._clock.now() - row.created_at).total_seconds()
        self._observe(Relayed(row.name, _id(row), max(0.0, waited), duplicate, *_story(row)))

    def _hold_up(self, row: Row, error: EventBusError) -> bool:
        """Decide what becomes of a row that was refused; tell whether its key waits for it."""
        if isinstance(error, _NOTHING_GOES):
            if self.stopped is None:
                self.stopped = error
                self._observe(RelayRefused(row.name, _id(row), error, 0))
            self.end()
            return True
        tries = row.tries + 1
        if error.retryable and tries < TRIES:
            self._claim.refused(row)
            self.refused[row.order] = tries
            self._observe(RelayRefused(row.name, _id(row), error, tries))
            return True
        self._claim.quarantine(row, f"{error} [{error.code}]")
        self._observe(Quarantined(row.name, _id(row), error, *_story(row)))
        return False


def _fits(row: Row) -> bool:
    if row.publish_at is not None or row.message.headers.get(h.KIND) == "state":
        return False  # it is kept beside the stream as well
    return _OURS.fullmatch(row.message.id or "") is not None


def _id(row: Row) -> str:
    return h.unquoted(row.message.headers.get(h.ID, ""))


def _story(row: Row) -> tuple[str, str]:
    """Return what its event belongs to: the trace, and the correlation id."""
    headers = row.message.headers
    return headers.get("traceparent", ""), h.unquoted(headers.get(h.CORRELATION_ID, ""))
