"""One emit: envelope, chain, codec, driver, receipt."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import chain, islice

from eventbus import codec
from eventbus import headers as h
from eventbus.agenda import Agenda
from eventbus.correlation import Scope, current_scope
from eventbus.drivers.abilities import is_immediate
from eventbus.drivers.base import Driver, Receipt
from eventbus.drivers.receipt import traced
from eventbus.duplicates import accepted
from eventbus.envelope import Envelope, Message
from eventbus.enveloping import check_options
from eventbus.errors import BackpressureError, DeclarationError
from eventbus.event import Event
from eventbus.lot import LEAST, Asked, Lot, is_event
from eventbus.middleware.base import EmitOptions, chain_emit
from eventbus.pipeline import Begun, Pipeline, goes_along
from eventbus.postponed import Postponed
from eventbus.routing import Choose, Publishing, Route, Way, Ways
from eventbus.stores.base import Transaction, open_transaction, outside_transactions
from eventbus.telling import Telling
from eventbus.template import template_of
from eventbus.unresolved import Unresolved

__all__ = ("Choose", "Emitter", "Publishing", "Route")

AT_ONCE = 512
"""How many of a lot of emits wait for the server at once."""


class Emitter:
    """Emits through the drivers of one service."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing
        self._ways = Ways(publishing, self._way_to)
        self._unresolved = Unresolved()
        self._telling = Telling(publishing)
        self.postponed = Postponed(publishing)
        """The delayed events, once they are emitted."""
        self._pipeline = self._pipelined()

    def _pipelined(self) -> Pipeline | None:
        driver, own = self._ways.pipeline, self._ways.own
        if driver is None:
            return None
        return Pipeline(driver, own, self._telling, self._unresolved, self._ways.brackets)

    def begin(self, event: Event, options: EmitOptions) -> Begun | None:
        """Begin an emit that needs nothing but the driver's answer; None for others.

        Those have more around them, or go elsewhere: `emit` takes them all. Raises as it does.
        """
        pipeline = self._pipeline
        if pipeline is None or not goes_along(event, options) or _has_more(pipeline):
            return None
        return pipeline.begin(event, options)

    async def emit(self, event: Event, options: EmitOptions) -> Receipt:
        """Emit an event; returns once it is stored.

        An emit of this object whose outcome stayed unknown is repeated under the same id, so that
        it can't be stored twice within the duplicate window (P2).

        Raises:
            TypeError: There is no such option, or two that contradict each other.
            ValueError: A time or duration is none.
            DeclarationError, EncodeError, HeaderError, InvalidEventError: It can't be emitted.
            IdConflictError: Another event is stored under its id.
            DriverError: As `eventbus.drivers.base.Driver.publish`.
        """
        if options:
            check_options(options)
        scope, way = current_scope(), self._ways.choose(event, options)
        known = self._unresolved.id_of(event, scope.handled)
        envelope = way.enveloped(event, options, known, scope)
        self._unresolved.take(event, known)
        if way.is_immediate and self._deferred(way, envelope, options):
            return Receipt(envelope.id, "", 0, driver=way.driver.name, pending=True)
        started = self._telling.now()
        try:
            if options and options.get("immediate"):
                receipt = await self._direct(way, envelope)
            elif envelope.due is None:
                receipt = await way.chain(envelope)
            else:
                receipt = await way.later(envelope)
            if receipt.duplicate:
                fresh = known is None and scope.handled is None and options.get("id") is None
                receipt = await accepted(way.driver, envelope, receipt, fresh=fresh)
        except (Exception, asyncio.CancelledError) as exc:
            self._unresolved.consider(exc, event, envelope.id, scope.handled, known)
            self._telling.failed(way.driver.name, envelope, exc, started)
            raise
        if receipt.pending:
            self._tell_later(way, envelope, receipt, started)
        else:
            self._telling.stored(way.driver.name, envelope, receipt, started)
        return receipt

    async def _direct(self, way: Way, envelope: Envelope) -> Receipt:
        with outside_transactions():
            return await way.along(envelope)(envelope)

    def _deferred(self, way: Way, envelope: Envelope, options: EmitOptions) -> bool:
        """Have an event's listeners run after the commit; False where they are to run now."""
        event, waits = envelope.event, options.get("after_commit")
        if waits is None:
            waits = template_of(event).waits_for_commit(event)
        waits = waits or envelope.due is not None
        transaction = open_transaction() if waits and not options.get("immediate") else None
        if transaction is None:
            return False
        transaction.defer(partial(self._after_commit, way, envelope))
        return True

    async def _after_commit(self, way: Way, envelope: Envelope) -> None:
        """Emit what waited for a commit; who emitted it has gone on, so observers are told."""
        started = self._publishing.clock.monotonic()
        try:
            receipt = await way.along(envelope)(envelope)
        except Exception as exc:  # noqa: BLE001 - whatever a listener raised, it is committed
            self._telling.failed(way.driver.name, envelope, exc, started)
        else:
            self._telling.stored(way.driver.name, envelope, receipt, started)

    def _tell_later(self, way: Way, envelope: Envelope, receipt: Receipt, started: float) -> None:
        """Have observers told once what is in a transaction is stored."""
        tell = partial(self._telling.stored, way.driver.name, envelope, receipt, started)
        transaction = open_transaction()
        if transaction is None:
            tell()
        else:
            transaction.tell(tell)

    @property
    def driver(self) -> Driver:
        """The service's own driver."""
        return self._ways.own.driver

    @property
    def source(self) -> str:
        """The service that emits."""
        return self._publishing.source

    async def emit_tick(self, event: Event, *, id: str, due: datetime, tick: str) -> Receipt:
        """Emit the event of a tick, to wait for its time; a duplicate where one waits already.

        It goes through the service's own driver. Raises as `emit` does.
        """
        publishing, way = self._publishing, self._ways.own
        started = publishing.clock.monotonic()
        source = publishing.source
        envelope = Envelope.of(event, source=source, time=due, id=id, due=due, scope=Scope())
        receipt = await way.later(replace(envelope, tick=tick))
        if not receipt.duplicate:
            self._telling.stored(way.driver.name, envelope, receipt, started)
        return receipt

    async def emit_many(self, events: Iterable[Event]) -> list[Receipt]:
        """Emit events at once, in their order; return their receipts in the same order.

        Raises:
            ExceptionGroup: What the emits that failed raised, and at the end what ``events``
                raised, if they did; the others are stored.
            Exception: What ``events`` raised, where none failed; those before are stored.
        """
        with Asked(self._unresolved, current_scope().handled) as asked:
            todo = await self._in_a_lot(asked, asked.taken(events))
            await self._one_by_one(asked, todo)
            asked.check()
            return [one for one in asked.results if isinstance(one, Receipt)]

    async def _in_a_lot(self, asked: Asked, todo: Iterator[object]) -> Iterator[object]:
        """Emit events through the driver's pipeline; return what is left.

        None go that way where one needs what a single emit has: a transaction, a handled event, a
        trace.
        """
        pipeline = self._pipeline
        if pipeline is None or _has_more(pipeline):
            return todo
        first = list(islice(todo, LEAST))
        todo = chain(first, todo)
        if len(first) < LEAST:
            return todo
        return chain(await Lot(pipeline, asked).run(todo), todo)

    async def _one_by_one(self, asked: Asked, todo: Iterator[object]) -> None:
        """Emit each by itself, many at a time; the next is asked for as one has ended."""
        first = list(islice(todo, AT_ONCE))
        left = chain(first, todo)

        async def work() -> None:
            for event in left:
                if not is_event(event):
                    asked.refuse(event)
                    continue
                number = asked.begin(event)
                try:
                    asked.results[number] = await self.emit(event, {})
                except Exception as exc:  # noqa: BLE001 - all are raised together
                    asked.results[number] = exc

        # What one has begun is on its way before the next begins, so their order is kept.
        async with asyncio.TaskGroup() as group:
            for _ in first:
                group.create_task(work())

    def _way_to(self, route: Route) -> Way:
        driver, middleware = route.driver, self._publishing.middleware
        publish = chain_emit(middleware, partial(self._publish, route))
        if is_immediate(driver):
            chain = chain_emit(middleware, driver.hand_over)
            return Way(route, self._publishing, chain, later=publish, is_immediate=True)
        return Way(route, self._publishing, publish, later=publish)

    def _publish(self, route: Route, envelope: Envelope) -> Awaitable[Receipt]:
        """Return the publishing of an envelope: the driver's own, where it needs nothing else."""
        message = codec.encode(envelope, route.subjects.prefix + envelope.name)
        trace = envelope.trace.get("traceparent", "") if envelope.trace else ""
        publish: Callable[[Message], Awaitable[Receipt]] = route.driver.publish
        if (
            envelope.due is not None
            or current_scope().handled is not None
            or open_transaction() is not None
        ):
            publish = partial(self._publish_with, route, envelope)
        return _traced(publish, message, trace) if trace else publish(message)

    async def _publish_with(self, route: Route, envelope: Envelope, message: Message) -> Receipt:
        transaction = open_transaction()
        if transaction is not None:
            self._check_carried(transaction, route, envelope)
            place = await transaction.add(message, publish_at=envelope.due)
            carrier, table = transaction.carrier, transaction.table
            return Receipt(envelope.id, table, place, driver=carrier, pending=True)
        if envelope.due is not None:
            return await Agenda(route.driver, route.subjects).add(message, at=envelope.due)
        return await self._store(route.driver, message)

    def _check_carried(self, transaction: Transaction, route: Route, envelope: Envelope) -> None:
        """Refuse what would go elsewhere: all that is in a transaction goes through one driver."""
        if route.driver is not (transaction.driver or self._publishing.driver):
            raise DeclarationError(
                f"'{envelope.name}' goes through driver '{route.driver.name}', and what is in "
                f"'{transaction.table}' through another one alone; emit it outside of the "
                "transaction, or with immediate=True"
            )

    async def _store(self, driver: Driver, message: Message) -> Receipt:
        try:
            return await driver.publish(message)
        except BackpressureError:
            # A state is refused all the same: it would come to listeners behind later ones.
            may_wait = driver.features.delay and message.headers[h.KIND] != "state"
            if current_scope().handled is None or not may_wait:
                raise
        # Refused, it would be tried again and again while the handled event holds the very room.
        return await driver.hold(message)


def _has_more(pipeline: Pipeline) -> bool:
    """Tell whether emits have more around them here: a handled event, a trace, a transaction."""
    scope = current_scope()
    has_trace = bool(scope.trace) and pipeline.brackets is None
    return has_trace or scope.handled is not None or open_transaction() is not None


async def _traced(
    publish: Callable[[Message], Awaitable[Receipt]], message: Message, trace: str
) -> Receipt:
    return traced(await publish(message), trace)
