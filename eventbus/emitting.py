"""`Emitting`: the side of a service that emits, and what tests make of that."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar, Unpack, overload

from typing_extensions import override

from eventbus import codec
from eventbus.drivers.abilities import keeps_states
from eventbus.drivers.base import Receipt
from eventbus.drivers.receipt import Scheduled
from eventbus.duration import Duration
from eventbus.emission import Emitter
from eventbus.enveloping import due_of
from eventbus.errors import NotConnectedError, UnsupportedError
from eventbus.event import Event, spec_of
from eventbus.faking import Fake, active_fakes, current_fake, keeping_fake
from eventbus.kinds import StateDeleted, StateEvent
from eventbus.middleware.base import EmitOptions
from eventbus.recording import EventStore
from eventbus.states import States
from eventbus.stores.choice import require_sql
from eventbus.subject import Subjects, check_event_name
from eventbus.tracking import Track, Tracked
from eventbus.worker.worker import Job

if TYPE_CHECKING:  # pydantic-settings is slow to import; a service without one loads it at start
    from eventbus.stores.sql.transaction import Asked

from eventbus.parts import Parts

__all__ = ("Emitting",)

StateT = TypeVar("StateT", bound=StateEvent)
JobT = TypeVar("JobT", bound=Job)
ResourceT = TypeVar("ResourceT", bound=AbstractAsyncContextManager[object])
ListenerT = TypeVar("ListenerT", bound=Callable[..., Awaitable[object]])


class Emitting(Parts):
    """The part of `EventService` that is about what it emits."""

    @overload
    async def emit(self, event: Event, /, **options: Unpack[EmitOptions]) -> Receipt: ...
    @overload
    async def emit(
        self, event: str, data: Mapping[str, object], /, **options: Unpack[EmitOptions]
    ) -> Receipt: ...
    async def emit(
        self,
        event: Event | str,
        data: Mapping[str, object] | None = None,
        /,
        **options: Unpack[EmitOptions],
    ) -> Receipt:
        """Emit an event, or the one that a name and its data describe.

        Returns once the event is stored (P1): every listener whose durable exists will get it, at
        least once; with ``delay`` or ``at`` not before that time. Inside a listener it inherits
        the correlation id, and a redelivered listener that emits the same again is deduplicated.

        Args:
            event: An event, or the name of a declared one.
            data: The payload that belongs to a name; strict, an unknown field is an error.
            options: See `eventbus.middleware.base.EmitOptions`.

        Raises:
            SubjectError, UnknownEventError, InvalidEventError, HeaderError: It can't be emitted.
            TypeError, ValueError: An option is unknown, or no time or duration.
            UnsupportedError: ``delay`` or ``at``, and the driver has no schedules.
            EmitUnknown: No answer in time; emit the same object again, or the same ``id=`` (P2).
            BackpressureError: The stream is full of unread events; nothing is stored.
            PayloadTooLargeError, NotAuthorizedError, NotConnectedError, PublishError: Not stored.
        """
        if data is not None or not isinstance(event, Event):
            event = self._event(event, data)
        if active_fakes():
            fake = current_fake(self.name, type(event))
            if fake is not None:
                return fake.record(event, options, service=self.name, time=self._clock.now())
        emitter = self._emitter or self._ready()
        begun = emitter.begin(event, options)
        if begun is None:
            return await emitter.emit(event, options)
        # Here, and not in a coroutine below: each layer is paid for with every event.
        try:
            if begun.answer is not None:
                await begun.answer
        except asyncio.CancelledError:
            begun.abandon()
            raise
        except Exception:  # noqa: BLE001 - `end` says what it means
            return await begun.end()
        return begun.receipt() or await begun.end()

    async def emit_if(
        self,
        condition: bool,
        event: Event | str,
        data: Mapping[str, object] | None = None,
        /,
        **options: Unpack[EmitOptions],
    ) -> Receipt | None:
        """Emit as `emit` does where the condition holds; return None where it doesn't."""
        if not condition:
            return None
        return await self.emit(self._event(event, data), **options)

    async def emit_unless(
        self,
        condition: bool,
        event: Event | str,
        data: Mapping[str, object] | None = None,
        /,
        **options: Unpack[EmitOptions],
    ) -> Receipt | None:
        """Emit as `emit` does where the condition doesn't hold; return None where it does."""
        return await self.emit_if(not condition, event, data, **options)

    async def emit_many(self, events: Iterable[Event]) -> list[Receipt]:
        """Emit events at once, in their order, and return their receipts in the same order.

        Not atomic: where some fail, the others are stored. They may come from a generator: it is
        asked for the next ones as those before go, so that they needn't be in memory together.
        After a call that was cancelled or raised, emitting the same objects again stores none of
        them twice (P2).

        Raises:
            ExceptionGroup: What the emits that failed raised; what ``events`` itself raised
                comes last. What is no event fails with a TypeError.
            Exception: What ``events`` itself raises, once those before have ended; none failed.
        """
        if active_fakes():
            return [await self.emit(one) for one in events]
        return await self._ready().emit_many(events)

    async def cancel(self, scheduled: Scheduled | str | None) -> bool:
        """Have a delayed event never fire; return whether it was still in time.

        The answer is exact: after True no listener gets it, after False all do, or have. One that
        is cancelled is cancelled, so doing it again is True again (for the duplicate window).

        Args:
            scheduled: What its receipt says, or the id of an event that this service delayed.
                None, as of an event that wasn't delayed, is too late.

        Raises:
            UnsupportedError: The driver has no schedules.
            DriverError: Nobody knows now; cancel it again.
        """
        fake, id = keeping_fake(scheduled)
        if fake is not None:
            return fake.cancel(id)
        return await self._ready().postponed.cancel(scheduled)

    async def reschedule(
        self,
        scheduled: Scheduled | str | None,
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
    ) -> Scheduled | None:
        """Have a delayed event fire at another time, from now or on the clock.

        It stays the same event, with the same id; its expiry moves with it. Returns the new place,
        or None where it was too late, or it is cancelled.

        Raises:
            TypeError, ValueError: No time is given, two are, or what is given is none.
            UnsupportedError, DriverError: As `cancel`.
        """
        fake, id = keeping_fake(scheduled)
        due = due_of(delay, at, self._clock.now())
        if fake is not None and due is not None:
            return fake.reschedule(id, due)
        return await self._ready().postponed.reschedule(scheduled, delay=delay, at=at)

    async def state(self, event: type[StateT], key: str) -> StateT | None:
        """Return the last state event of a key; None where there is none, or it was deleted.

        Raises:
            InvalidEventError, UpcastError, DecodeError: What is kept doesn't fit the class.
            UnsupportedError: The service's driver keeps no states.
            NotConnectedError, DriverError: The server can't say now.
        """
        return await self._states(event).last(event, key)

    def states(self, event: type[StateT]) -> AsyncIterator[StateT]:
        """Iterate over the last state event of each key; raises as `state`.

        ``async for profile in events.states(UserProfile)``: for who starts to keep a copy.
        """
        return self._states(event).all(event)

    async def delete_state(
        self, event: type[StateEvent], key: str, /, **options: Unpack[EmitOptions]
    ) -> Receipt:
        """Delete the state of a key, and tell listeners that take `StateDeleted`; as `emit`."""
        self.registry.register(event)
        return await self.emit(StateDeleted.of(event, key), **options)

    def _states(self, event: type[StateEvent]) -> States:
        if self._connections is None:
            raise NotConnectedError(
                f"service '{self.name}' isn't started, so it can't read states"
            )
        driver = self._connections.driver_of(spec_of(event))
        if not keeps_states(driver):
            raise UnsupportedError(
                driver=driver.name,
                feature="keeping states",
                remedy="use the driver 'jetstream' or 'memory'",
            )
        return States(driver, self.registry, self._clock)

    @property
    def store(self) -> EventStore:
        """The event store: ``async for one in events.store.query(name="user.*")``."""
        if self._store is None:
            self._store = EventStore(self.settings)
        return self._store

    def transaction(self, session: "Asked") -> AbstractAsyncContextManager[None]:
        """Let the emits of a block take part in a database transaction of yours.

        ::

            async with session.begin(), events.transaction(session):
                session.add(order)
                await events.emit(OrderPlaced(order_id=order.id))

        Each emit stores a row in the outbox, in that transaction: committed, the event goes as
        soon as a relay runs, and rolled back, it never was; savepoints included. You begin,
        commit and roll back. Receipts are ``pending``. ``emit(..., immediate=True)`` goes direct,
        and so does what a task emits that outlives the block.

        Args:
            session: A session or connection of SQLAlchemy 2, async or not.

        Raises:
            SettingsError: SQLAlchemy isn't installed.
            TypeError: It is no session and no connection; raised as the block begins.
        """
        require_sql()
        from eventbus.stores.sql.transaction import taking_part

        return taking_part(session, self._afterwards, notify=self.settings.outbox_notify)

    @override
    def _event(self, event: Event | str, data: Mapping[str, object] | None) -> Event:
        if isinstance(event, Event):
            if data is not None:
                raise TypeError("emit() takes an event, or a name and its data, not both")
            return event
        if not isinstance(event, str):
            raise TypeError(f"emit() takes an event, or a name and its data, not {event!r}")
        if event not in self.registry:
            check_event_name(event)
            self.discover()
        return codec.validate(self.registry.resolve(event), {} if data is None else data)

    @override
    def _subjects(self) -> Subjects:
        return self.settings.subjects

    @override
    async def _emit(self, event: Event, options: EmitOptions) -> Receipt:
        return await self.emit(event, **options)

    def _ready(self) -> Emitter:
        if self._emitter is None:
            raise NotConnectedError(
                f"service '{self.name}' isn't started; use 'async with events:' or "
                "'await events.start()' before emit"
            )
        return self._emitter

    def fake(
        self,
        *,
        only: Iterable[type[Event] | str] = (),
        except_: Iterable[type[Event] | str] = (),
    ) -> Fake:
        """Record what this service emits instead of publishing it, from now on.

        ``with events.fake() as fake:`` ends it with the block, else `Fake.restore` does. The
        service need not be started. See `eventbus.faking.Fake`.
        """
        return Fake(self.name, only=only, except_=except_, listening=lambda: self.subscriptions)

    def track(self, *others: Tracked, timeout: Duration = 10.0) -> Track:
        """Wait for all that the emits of a block cause here and in other services.

        See `eventbus.tracking.Track`.
        """
        return Track((self, *others), timeout=timeout)
