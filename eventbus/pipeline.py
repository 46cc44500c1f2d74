"""`Pipeline`: emits that need nothing but the driver's answer, one or many at a time."""

import asyncio
from dataclasses import dataclass
from typing import Final

from eventbus import codec
from eventbus.correlation import current_scope
from eventbus.drivers.pipelined import Answer, Pipelined, abandon
from eventbus.drivers.receipt import Receipt
from eventbus.duplicates import accepted
from eventbus.envelope import Envelope, Message
from eventbus.enveloping import check_options
from eventbus.event import Event
from eventbus.middleware.base import EmitOptions
from eventbus.routing import Way
from eventbus.telling import Telling
from eventbus.template import template_of
from eventbus.unresolved import Unresolved

__all__ = ("Begun", "Pipeline", "goes_along")

_MORE: Final = frozenset({"at", "delay", "driver", "immediate"})
"""Options of an emit that may go another way."""


class Pipeline:
    """The way of a service's emits through its own driver, with nothing in between.

    Each is begun, then its answer awaited; then it has a receipt, or `Begun.end` sees to it.
    """

    def __init__(
        self, driver: Pipelined, way: Way, telling: Telling, unresolved: Unresolved
    ) -> None:
        self.driver = driver
        self.name = driver.name
        self.pipe = driver.pipe
        self._prefix = way.route.subjects.prefix
        self._way = way
        self.telling = telling
        self.unresolved = unresolved

    def begin(self, event: Event, options: EmitOptions) -> "Begun":
        """Send an event, if it needn't wait; raises as an emit where it can't be carried."""
        if options:
            check_options(options)
        known = self.unresolved.id_of(event, None)
        envelope = self._way.enveloped(event, options, known, current_scope())
        started = self.telling.now()
        try:
            message = codec.encode(envelope, self._prefix + envelope.name)
            answer = self.pipe.begin(message)
        except Exception as exc:
            self.telling.failed(self.name, envelope, exc, started)
            raise
        self.unresolved.take(event, known)
        fresh = known is None and "id" not in options
        return Begun(self, envelope, message, answer, started, known, fresh)


@dataclass(slots=True)
class Begun:
    """An emit that is under way."""

    pipeline: Pipeline
    envelope: Envelope
    message: Message
    answer: Answer | None
    """What to await; None where it isn't sent, and has to wait."""
    started: float
    known: str | None
    """The id it had before."""
    fresh: bool
    """Whether its id is new."""

    def receipt(self) -> Receipt | None:
        """Return the receipt if its answer came, and tell of it; None where `end` has to."""
        if self.answer is None:
            return None
        pipeline = self.pipeline
        receipt = pipeline.pipe.receipt_of(self.message, self.answer)
        if receipt is not None:
            pipeline.telling.stored(pipeline.name, self.envelope, receipt, self.started)
        return receipt

    async def end(self) -> Receipt:
        """Return once it is stored, if it isn't sent, or its answer isn't the usual one.

        Raises as an emit.
        """
        pipeline, envelope, started = self.pipeline, self.envelope, self.started
        driver, telling = pipeline.driver, pipeline.telling
        try:
            if self.answer is None:
                receipt = await driver.publish(self.message)
            else:
                waited = telling.now() - started
                receipt = await pipeline.pipe.end(self.message, self.answer, waited=waited)
            if receipt.duplicate:
                receipt = await accepted(driver, envelope, receipt, fresh=self.fresh)
        except (Exception, asyncio.CancelledError) as exc:
            event, known = envelope.event, self.known
            pipeline.unresolved.consider(exc, event, envelope.id, None, known)
            telling.failed(pipeline.name, envelope, exc, started)
            raise
        telling.stored(pipeline.name, envelope, receipt, started)
        return receipt

    def abandon(self) -> None:
        """Wait no more for the answer; the event keeps its id for when it is emitted again (P2)."""
        self.pipeline.unresolved.keep(self.envelope.event, self.envelope.id, None)
        if self.answer is not None:
            abandon(self.answer)

    def undo(self) -> None:
        """Have it that it wasn't begun; it isn't sent."""
        if self.known is not None:
            self.pipeline.unresolved.keep(self.envelope.event, self.known, None)


def goes_along(event: Event, options: EmitOptions) -> bool:
    """Tell whether an event goes to the service's own driver like any other."""
    if options and not _MORE.isdisjoint(options):
        return False
    return template_of(event).goes_along(event)
