"""`Pipeline`: emits that need nothing but the driver's answer, one or many at a time."""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from eventbus import codec
from eventbus.correlation import Scope, current_scope
from eventbus.drivers.pipelined import Answer, Pipelined, abandon
from eventbus.drivers.receipt import Receipt
from eventbus.duplicates import accepted
from eventbus.envelope import Envelope, Message
from eventbus.enveloping import check_options
from eventbus.event import Event
from eventbus.middleware.base import EmitOptions
from eventbus.telling import Telling
from eventbus.unresolved import Unresolved

__all__ = ("Begun", "Made", "Pipeline", "goes_along")

Made: TypeAlias = Callable[[Event, EmitOptions, str | None, Scope], Envelope]
"""Makes the envelope of an event, which had that id before."""
Begun: TypeAlias = tuple[Envelope, Message, Answer | None, float, str | None, bool]
"""What it is, as it was sent, its answer, when it began, the id it had before, if its id is new.

Without an answer it isn't sent: it has to wait.
"""
_MORE = frozenset({"at", "delay", "driver", "immediate"})
"""Options of an emit that may go another way."""


class Pipeline:
    """The way of a service's emits through its own driver, with nothing in between.

    Each is begun, then its answer awaited; then it has a receipt, or `end` sees to it.
    """

    def __init__(
        self,
        driver: Pipelined,
        prefix: str,
        made: Made,
        telling: Telling,
        unresolved: Unresolved,
    ) -> None:
        self._driver = driver
        self._name = driver.name
        self._prefix = prefix
        self._made = made
        self._telling = telling
        self._unresolved = unresolved

    def begin(self, event: Event, options: EmitOptions) -> Begun:
        """Send an event, if it needn't wait; raises as an emit where it can't be carried."""
        if options:
            check_options(options)
        known = self._unresolved.id_of(event, None)
        envelope = self._made(event, options, known, current_scope())
        started = self._telling.now()
        try:
            message = codec.encode(envelope, self._prefix + envelope.name)
            answer = self._driver.begin(message)
        except Exception as exc:
            self._telling.failed(self._name, envelope, exc, started)
            raise
        self._unresolved.take(event, known)
        fresh = known is None and "id" not in options
        return envelope, message, answer, started, known, fresh

    def receipt_of(self, begun: Begun) -> Receipt | None:
        """Return the receipt of one whose answer came, and tell of it; None where `end` has to."""
        envelope, message, answer, started, _, _ = begun
        receipt = None if answer is None else self._driver.receipt_of(message, answer)
        if receipt is not None:
            self._telling.stored(self._name, envelope, receipt, started)
        return receipt

    async def end(self, begun: Begun) -> Receipt:
        """Return once one is stored that isn't sent, or whose answer isn't the usual one.

        Raises as an emit.
        """
        envelope, message, answer, started, known, fresh = begun
        driver, telling = self._driver, self._telling
        try:
            if answer is None:
                receipt = await driver.publish(message)
            else:
                receipt = await driver.end(message, answer, waited=telling.now() - started)
            if receipt.duplicate:
                receipt = await accepted(driver, envelope, receipt, fresh=fresh)
        except (Exception, asyncio.CancelledError) as exc:
            self._unresolved.consider(exc, envelope.event, envelope.id, None, known)
            telling.failed(self._name, envelope, exc, started)
            raise
        telling.stored(self._name, envelope, receipt, started)
        return receipt

    def abandon(self, begun: Begun) -> None:
        """Wait no more for the answer; the event keeps its id for when it is emitted again (P2)."""
        envelope, _, answer, _, _, _ = begun
        self._unresolved.keep(envelope.event, envelope.id, None)
        if answer is not None:
            abandon(answer)

    def undo(self, begun: Begun) -> None:
        """Have it that one wasn't begun, which isn't sent."""
        envelope, _, _, _, known, _ = begun
        if known is not None:
            self._unresolved.keep(envelope.event, known, None)


def goes_along(event: Event, options: EmitOptions) -> bool:
    """Tell whether an event goes to the service's own driver like any other."""
    if options and not _MORE.isdisjoint(options):
        return False
    spec = event.event_spec
    return spec is None or (spec.driver is None and spec.kind != "state")
