"""`Pipeline`: emits that need nothing but the driver's answer, one or many at a time."""

import asyncio
from dataclasses import dataclass
from typing import Final

from eventbus import codec
from eventbus.correlation import Scope, current_scope
from eventbus.drivers.pipelined import Answer, Pipelined, abandon
from eventbus.drivers.receipt import Receipt, traced
from eventbus.duplicates import accepted
from eventbus.envelope import Envelope, Message
from eventbus.enveloping import check_options
from eventbus.event import Event
from eventbus.middleware.base import EmitOptions
from eventbus.middleware.brackets import Bracket, EmitBrackets
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
        self,
        driver: Pipelined,
        way: Way,
        telling: Telling,
        unresolved: Unresolved,
        brackets: EmitBrackets | None = None,
    ) -> None:
        self.driver = driver
        self.name = driver.name
        self.pipe = driver.pipe
        self._prefix = way.route.subjects.prefix
        self._way = way
        self.telling = telling
        self.unresolved = unresolved
        self.brackets = brackets
        """Gives what stands around each emit."""

    def begin(self, event: Event, options: EmitOptions) -> "Begun | None":
        """Send an event, if it needn't wait; raises as an emit where it can't be carried.

        None where what stands around it can't be taken apart, so that it is no way for it.
        """
        if options:
            check_options(options)
        scope, bracket = current_scope(), None
        if self.brackets is not None:
            bracket = self.brackets.bracket(scope.trace)
            if bracket is None:
                return None
            scope = _within(scope, bracket)
        known = self.unresolved.id_of(event, None)
        envelope = self._way.enveloped(event, options, known, scope)
        if bracket is not None:
            bracket.about(envelope)
        started = self.telling.now()
        try:
            message = codec.encode(envelope, self._prefix + envelope.name)
            answer = self.pipe.begin(message)
        except Exception as exc:
            if bracket is not None:
                bracket.close(exc)
            self.telling.failed(self.name, envelope, exc, started)
            raise
        self.unresolved.take(event, known)
        fresh = known is None and "id" not in options
        return Begun(self, envelope, message, answer, started, known, fresh, bracket)


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
    bracket: Bracket | None
    """What stands around it, and is to be closed."""

    def receipt(self) -> Receipt | None:
        """Return the receipt if its answer came, and tell of it; None where `end` has to."""
        if self.answer is None:
            return None
        pipeline = self.pipeline
        receipt = pipeline.pipe.receipt_of(self.message, self.answer)
        if receipt is not None:
            if self.bracket is not None:
                receipt = _closed(self.bracket, receipt)
            pipeline.telling.stored(pipeline.name, self.envelope, receipt, self.started)
        return receipt

    async def end(self) -> Receipt:
        """Return once it is stored, if it isn't sent, or its answer isn't the usual one.

        Raises as an emit.
        """
        pipeline, envelope, started = self.pipeline, self.envelope, self.started
        telling = pipeline.telling
        try:
            if self.bracket is None:
                receipt = await self._stored()
            else:
                receipt = await self._stored_within(self.bracket)
            if receipt.duplicate:
                receipt = await accepted(pipeline.driver, envelope, receipt, fresh=self.fresh)
        except (Exception, asyncio.CancelledError) as exc:
            event, known = envelope.event, self.known
            pipeline.unresolved.consider(exc, event, envelope.id, None, known)
            telling.failed(pipeline.name, envelope, exc, started)
            raise
        telling.stored(pipeline.name, envelope, receipt, started)
        return receipt

    async def _stored(self) -> Receipt:
        pipeline, message, answer = self.pipeline, self.message, self.answer
        if answer is None:
            return await pipeline.driver.publish(message)
        waited = pipeline.telling.now() - self.started
        return await pipeline.pipe.end(message, answer, waited=waited)

    async def _stored_within(self, bracket: Bracket) -> Receipt:
        try:
            with bracket.active():
                receipt = await self._stored()
        except (Exception, asyncio.CancelledError) as exc:
            bracket.close(exc)
            raise
        return _closed(bracket, receipt)

    def abandon(self) -> None:
        """Wait no more for the answer; the event keeps its id for when it is emitted again (P2)."""
        self.pipeline.unresolved.keep(self.envelope.event, self.envelope.id, None)
        if self.answer is not None:
            abandon(self.answer)
        if self.bracket is not None:
            self.bracket.close()

    def undo(self) -> None:
        """Have it that it wasn't begun; it isn't sent."""
        if self.known is not None:
            self.pipeline.unresolved.keep(self.envelope.event, self.known, None)


def goes_along(event: Event, options: EmitOptions) -> bool:
    """Tell whether an event goes to the service's own driver like any other."""
    if options and not _MORE.isdisjoint(options):
        return False
    return template_of(event).goes_along(event)


def _within(scope: Scope, bracket: Bracket) -> Scope:
    """Return a scope whose trace goes on with what has begun."""
    trace = {"traceparent": bracket.traceparent}
    return Scope(scope.correlation_id, scope.causation_id, trace, scope.handled)


def _closed(bracket: Bracket, receipt: Receipt) -> Receipt:
    bracket.close()
    return traced(receipt, bracket.traceparent)
