"""One emit: envelope, chain, codec, driver, receipt; and the ids of emits with no known outcome."""

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeAlias

from eventbus import codec
from eventbus import headers as h
from eventbus.agenda import Agenda
from eventbus.clock import Clock
from eventbus.correlation import Handled, Scope, current_scope
from eventbus.drivers.abilities import is_immediate
from eventbus.drivers.base import Driver, Receipt
from eventbus.drivers.receipt import Scheduled
from eventbus.duration import Duration
from eventbus.envelope import Envelope, Message
from eventbus.enveloping import check_options, due_of, enveloped
from eventbus.errors import (
    BackpressureError,
    DeclarationError,
    EmitUnknown,
    IdConflictError,
    InvalidEventError,
    UnsupportedError,
    did_you_mean,
)
from eventbus.event import Event
from eventbus.middleware.base import CallEmit, EmitMiddleware, EmitOptions, chain_emit
from eventbus.stores.base import Transaction, open_transaction, outside_transactions
from eventbus.subject import Subjects
from eventbus.telemetry.signals import Cancelled, EmitFailed, Emitted, Observer, is_watched

__all__ = ("Choose", "Emitter", "Publishing", "Route")

AT_ONCE = 512
"""How many of a lot of emits wait for the server at once."""

Choose: TypeAlias = Callable[[Event], str]
"""Names the driver of an event that doesn't name one itself."""


@dataclass(frozen=True, slots=True)
class Route:
    """A way that an emit may go."""

    driver: Driver
    subjects: Subjects
    run_after: float = 0.0
    """Seconds after which the event is published."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """What the emits of one service go through."""

    driver: Driver
    """Where neither the emit nor the event names one."""
    subjects: Subjects
    source: str
    clock: Clock
    observe: Observer
    middleware: tuple[EmitMiddleware, ...]
    named: Mapping[str, Route] = field(default_factory=dict[str, Route])
    """The routes that may be named."""
    run_after: float = 0.0
    """As `Route.run_after`, for where none is named."""
    choose: Choose | None = None
    """Asked where neither the emit nor the event names a driver."""


@dataclass(frozen=True, slots=True)
class _Lane:
    """A driver, and the chain that ends in it."""

    driver: Driver
    chain: CallEmit
    run_after: float = 0.0
    is_immediate: bool = False
    """Its driver runs listeners before the emit returns."""

    def due(self, options: EmitOptions, now: datetime) -> datetime | None:
        """Return when an event is to be published; None for at once.

        Raises:
            TypeError, ValueError: The options contradict each other, or what is given is no time.
            UnsupportedError: The driver has no schedules.
        """
        due = due_of(options.get("delay"), options.get("at"), now) if options else None
        if due is None and self.run_after:
            due = now + timedelta(seconds=self.run_after)
        if due is not None:
            _ = self.driver.schedules
        return due

    def check(self, envelope: Envelope) -> None:
        """Refuse a state where it isn't kept, and one that is delayed.

        Raises:
            UnsupportedError: The driver keeps no states.
            InvalidEventError: It is delayed.
        """
        if envelope.kind == "state":
            self._check_state(envelope)

    def _check_state(self, envelope: Envelope) -> None:
        if envelope.due is not None:
            problem = "a state says what is true now, and can't be delayed; use Event instead"
            raise InvalidEventError(name=envelope.name, problems=[("", problem)])
        if not self.driver.features.states:
            raise UnsupportedError(
                driver=self.driver.name,
                feature=f"keeping the last '{envelope.name}' of each key",
                remedy="emit it through 'jetstream' or 'memory'",
            )


@dataclass(frozen=True, slots=True)
class _Unresolved:
    """An emit of which nobody knows whether it is stored."""

    event: weakref.ref[Event]
    id: str
    run: Handled | None
    """The listener's run that emitted it; in another one the object stands for another event."""


class Emitter:
    """Emits through the drivers of one service."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing
        own = Route(publishing.driver, publishing.subjects, publishing.run_after)
        self._lane = self._lane_to(own)
        self._lanes = {name: self._lane_to(one) for name, one in publishing.named.items()}
        self._unresolved: dict[int, _Unresolved] = {}

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
        publishing = self._publishing
        now = publishing.clock.now()
        scope = current_scope()
        lane = self._choose(event, options)
        due = lane.due(options, now)
        repeated = self._unresolved_id(event, scope) if self._unresolved else None
        given = options.get("id")
        envelope = enveloped(
            event, options, source=publishing.source, now=now, due=due, id=repeated, scope=scope
        )
        lane.check(envelope)
        if lane.is_immediate and self._deferred(lane, envelope, options):
            return Receipt(envelope.id, "", 0, driver=lane.driver.name, pending=True)
        fresh = given is None and repeated is None and scope.handled is None
        started = publishing.clock.monotonic()
        direct = options.get("immediate")
        try:
            receipt = await (self._direct(lane, envelope) if direct else lane.chain(envelope))
            if receipt.duplicate:
                receipt = await self._repeated(lane.driver, envelope, receipt, fresh=fresh)
        except asyncio.CancelledError:
            self._remember(event, envelope.id, scope)
            raise
        except Exception as exc:
            if isinstance(exc, EmitUnknown):
                self._remember(event, envelope.id, scope)
            self._failed(lane.driver, envelope, exc, started)
            raise
        if repeated is not None:
            self._unresolved.pop(id(event), None)
        self._emitted(lane, envelope, receipt, started)
        return receipt

    async def _direct(self, lane: _Lane, envelope: Envelope) -> Receipt:
        with outside_transactions():
            return await lane.chain(envelope)

    def _deferred(self, lane: _Lane, envelope: Envelope, options: EmitOptions) -> bool:
        """Have an event's listeners run after the commit; False where they are to run now."""
        spec = envelope.event.event_spec
        waits = options.get("after_commit", spec is not None and spec.after_commit)
        transaction = open_transaction() if waits and not options.get("immediate") else None
        if transaction is None:
            return False
        transaction.defer(partial(self._after_commit, lane, envelope))
        return True

    async def _after_commit(self, lane: _Lane, envelope: Envelope) -> None:
        """Emit what waited for a commit; who emitted it has gone on, so observers are told."""
        started = self._publishing.clock.monotonic()
        try:
            receipt = await lane.chain(envelope)
        except Exception as exc:  # noqa: BLE001 - whatever a listener raised, it is committed
            self._failed(lane.driver, envelope, exc, started)
        else:
            self._tell(lane, envelope, receipt, started)

    def _emitted(self, lane: _Lane, envelope: Envelope, receipt: Receipt, started: float) -> None:
        """Tell of an emit, or have that done once it is stored."""
        transaction = open_transaction() if receipt.pending else None
        if transaction is None:
            self._tell(lane, envelope, receipt, started)
        else:
            transaction.tell(partial(self._tell, lane, envelope, receipt, started))

    def _tell(self, lane: _Lane, envelope: Envelope, receipt: Receipt, started: float) -> None:
        publishing = self._publishing
        if not is_watched(publishing.observe, Emitted):
            return
        publishing.observe(
            Emitted(
                envelope.name,
                envelope.id,
                receipt.driver if receipt.pending else lane.driver.name,
                envelope.correlation_id,
                publishing.clock.monotonic() - started,
                len(envelope.body),
                receipt.duplicate,
                key=envelope.key,
                causation_id=envelope.causation_id,
                trace=receipt.trace,
                tags=envelope.tags,
                due=envelope.due,
            )
        )

    @property
    def driver(self) -> Driver:
        """The service's own driver."""
        return self._lane.driver

    @property
    def source(self) -> str:
        """The service that emits."""
        return self._publishing.source

    async def emit_tick(self, event: Event, *, id: str, due: datetime, tick: str) -> Receipt:
        """Emit the event of a tick, to wait for its time; a duplicate where one waits already.

        It goes through the service's own driver. Raises as `emit` does.
        """
        publishing, lane = self._publishing, self._lane
        started = publishing.clock.monotonic()
        source = publishing.source
        envelope = Envelope.of(event, source=source, time=due, id=id, due=due, scope=Scope())
        receipt = await lane.chain(replace(envelope, tick=tick))
        if not receipt.duplicate:
            self._tell(lane, envelope, receipt, started)
        return receipt

    async def emit_many(self, events: Iterable[Event]) -> list[Receipt]:
        """Emit events at once, in their order; return their receipts in the same order.

        Raises:
            ExceptionGroup: What the emits that failed raised; the others are stored.
        """
        todo = list(events)
        results: list[Receipt | Exception | None] = [None] * len(todo)
        numbered = iter(enumerate(todo))

        async def work() -> None:
            for number, event in numbered:
                try:
                    results[number] = await self.emit(event, {})
                except Exception as exc:  # noqa: BLE001 - all are raised together
                    results[number] = exc

        # What one has begun is on its way before the next begins, so their order is kept.
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(todo))):
                group.create_task(work())
        errors = [one for one in results if isinstance(one, Exception)]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(results)} events failed", errors)
        return [one for one in results if isinstance(one, Receipt)]

    def _lane_to(self, route: Route) -> _Lane:
        driver = route.driver
        middleware = self._publishing.middleware
        if is_immediate(driver):
            chain = chain_emit(middleware, driver.hand_over)
            return _Lane(driver, chain, route.run_after, is_immediate=True)
        return _Lane(
            driver, chain_emit(middleware, partial(self._publish, route)), route.run_after
        )

    def _choose(self, event: Event, options: EmitOptions) -> _Lane:
        """Return the lane of the driver that the emit names, else the event, else the service's.

        Raises:
            DeclarationError: There is none of that name.
        """
        name = options.get("driver")
        if name is None:
            spec = event.event_spec
            name = None if spec is None else spec.driver
            if name is None and self._publishing.choose is not None:
                name = self._publishing.choose(event)
            if name is None:
                return self._lane
        lane = self._lanes.get(name)
        if lane is None:
            known, hint = ", ".join(self._lanes), did_you_mean(name, self._lanes)
            raise DeclarationError(
                f"service '{self._publishing.source}' has no driver '{name}' (it has {known}){hint}"
            )
        return lane

    async def cancel(self, scheduled: Scheduled | str | None) -> bool:
        """Have a delayed event never fire; False where it is too late.

        Raises:
            UnsupportedError: The driver has no schedules.
            DriverError: Whether it is cancelled isn't known.
        """
        if scheduled is None:
            return False
        one = self._named(scheduled)
        cancelled = await self._agenda_of(one).cancel(one.service, one.id)
        if cancelled:
            self._publishing.observe(Cancelled(one.id, one.service))
        return cancelled

    async def reschedule(
        self,
        scheduled: Scheduled | str | None,
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
    ) -> Scheduled | None:
        """Have a delayed event fire at another time; None where it is too late.

        Raises:
            TypeError, ValueError: No time is given, two are, or what is given is none.
            UnsupportedError: The driver has no schedules.
            DriverError: Whether it is rescheduled isn't known.
        """
        due = due_of(delay, at, self._publishing.clock.now())
        if due is None:
            raise TypeError("reschedule() takes delay= or at=")
        if scheduled is None:
            return None
        one = self._named(scheduled)
        return await self._agenda_of(one).move(one.service, one.id, due)

    def _named(self, scheduled: Scheduled | str) -> Scheduled:
        if isinstance(scheduled, Scheduled):
            return scheduled
        publishing = self._publishing
        return Scheduled(scheduled, publishing.source, publishing.clock.now())

    def _agenda_of(self, scheduled: Scheduled) -> Agenda:
        """Return the agenda of the driver that keeps an event; by default the service's."""
        publishing = self._publishing
        for route in publishing.named.values():
            if route.driver.name == scheduled.driver:
                return Agenda(route.driver, route.subjects)
        return Agenda(publishing.driver, publishing.subjects)

    async def _publish(self, route: Route, envelope: Envelope) -> Receipt:
        message = codec.encode(envelope, route.subjects.prefix + envelope.name)
        transaction = open_transaction()
        if transaction is not None:
            self._check_carried(transaction, route, envelope)
            place = await transaction.add(message, publish_at=envelope.due)
            carrier, table = transaction.carrier, transaction.table
            receipt = Receipt(envelope.id, table, place, driver=carrier, pending=True)
        elif envelope.due is not None:
            receipt = await Agenda(route.driver, route.subjects).add(message, at=envelope.due)
        else:
            receipt = await self._store(route.driver, message)
        trace = envelope.trace.get("traceparent", "") if envelope.trace else ""
        return replace(receipt, trace=trace) if trace else receipt

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

    async def _repeated(
        self, driver: Driver, envelope: Envelope, receipt: Receipt, *, fresh: bool
    ) -> Receipt:
        """Return the receipt of an event that was stored before under its id."""
        if envelope.due is None:
            await self._check_duplicate(driver, envelope, receipt, fresh=fresh)
            return receipt
        # With a new id it is this one, to whose first try there was no answer.
        return replace(receipt, duplicate=False) if fresh else receipt

    async def _check_duplicate(
        self, driver: Driver, envelope: Envelope, receipt: Receipt, *, fresh: bool
    ) -> None:
        """Refuse a duplicate that isn't this event (ADR 0014)."""
        stored = await driver.stored(receipt)
        if stored is None and not fresh:
            return
        if stored is None:
            raise IdConflictError(name=envelope.name, id=envelope.id, stored="an event now gone")
        kind = h.lowered(stored.headers).get(h.TYPE, "?")
        if fresh or kind != envelope.name or stored.body != envelope.body:
            place = f"'{kind}' at {receipt.stream}:{receipt.sequence}"
            raise IdConflictError(name=envelope.name, id=envelope.id, stored=place)

    def _failed(
        self, driver: Driver, envelope: Envelope, error: Exception, started: float
    ) -> None:
        publishing = self._publishing
        publishing.observe(
            EmitFailed(
                name=envelope.name,
                id=envelope.id,
                driver=driver.name,
                correlation_id=envelope.correlation_id,
                duration=publishing.clock.monotonic() - started,
                error=error,
                trace=envelope.trace.get("traceparent", ""),
            )
        )

    def _unresolved_id(self, event: Event, scope: Scope) -> str | None:
        """Return the id that an emit of this object left unresolved in this place."""
        one = self._unresolved.get(id(event))
        if one is None or one.event() is not event or one.run is not scope.handled:
            return None
        return one.id

    def _remember(self, event: Event, event_id: str, scope: Scope) -> None:
        number = id(event)
        forget = self._unresolved.pop
        # Nothing keeps the event alive for this; when it goes, so does the entry.
        reference = weakref.ref(event, lambda _: forget(number, None))
        self._unresolved[number] = _Unresolved(reference, event_id, scope.handled)
