"""One listener on an event of this process, at once: the chain, the context, the signals."""

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from types import CoroutineType
from typing import TypeAlias, cast
from uuid import UUID

from eventbus import codec
from eventbus import headers as h
from eventbus.calling import failure_of, read_for, scope_of, tell_failed
from eventbus.correlation import Scope, entered
from eventbus.delivery import Outcome
from eventbus.driving import begin
from eventbus.envelope import Envelope, Message
from eventbus.errors import CodecError, Discard, SchemaError
from eventbus.event import Data, Event
from eventbus.middleware.base import CallNext, Context, chain
from eventbus.middleware.timeout import Timeout
from eventbus.stores.base import open_transaction
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import (
    Audience,
    Audiences,
    ListenerStarted,
    Received,
    Returned,
    Settled,
    count_handled,
    count_received,
    is_watched,
    tell,
)
from eventbus.wiring import Wiring, layers_of

__all__ = ("ImmediateListener",)

_Call: TypeAlias = Coroutine[object, object, object]
_NO_CONTEXT = cast("Context", None)
"""For handlers that don't look at it."""
_OK = Outcome.OK  # a class of enumeration takes its time to look up a member
_FIXED = frozenset(
    {str, int, float, bool, bytes, type(None), datetime, date, time, timedelta, Decimal, UUID}
)
"""Types whose values nobody can change."""


_asked: ContextVar[list[object] | None] = ContextVar("eventbus_asked", default=None)
"""Where the result of a listener goes that is run for it."""


class ImmediateListener:
    """Runs one subscription's listener within the emit; it has one attempt.

    What another event would go through, this one does too: middleware, quick tries, the time
    limit, the context, correlation, and ``failed`` where it raised. It gets the emitter's own event
    where that can't be changed and is of a class that it takes, else one read from the payload.
    """

    def __init__(self, subscription: Subscription, wiring: Wiring) -> None:
        self._subscription = subscription
        self._wiring = wiring
        self._durable = subscription.durable
        self._monotonic = wiring.clock.monotonic
        self._taken: dict[type[Event], bool] = {}
        layers = layers_of(subscription, wiring)
        self._chain: CallNext = chain(layers, self._call)
        only = layers[0] if len(layers) == 1 else None
        self._bare = only if isinstance(only, Timeout) and not subscription.takes_context else None
        """All that stands around the listener, where it wants nothing but the event."""
        self._audiences = Audiences(wiring.observe, subscription.listener)

    async def handle(self, envelope: Envelope) -> Exception | None:
        """Run it on an event that was emitted in this process."""
        if self._takes(envelope) and _are_fixed(envelope.event.__dict__.values()):
            run = self._run if self._subscription.after_commit else self._run_now
            return await run(envelope)
        subject = self._wiring.subjects.event(envelope.name)
        return await self.receive(codec.encode(envelope, subject))

    async def receive(self, message: Message) -> Exception | None:
        """Run it on an event that comes as a message."""
        wiring, one = self._wiring, self._subscription
        name = wiring.subjects.event_name(message.subject) or "unknown"
        try:
            envelope = read_for(one, message, name, wiring.registry, received=wiring.clock.now())
        except (CodecError, SchemaError) as exc:
            return exc
        return await self._run(envelope)

    def _takes(self, envelope: Envelope) -> bool:
        """Tell whether it would read an event as the very class that was emitted."""
        event = type(envelope.event)
        known = self._taken.get(event)
        if known is None:
            registry = self._wiring.registry
            is_newest = envelope.name not in registry or registry.resolve(envelope.name) is event
            accepts = self._subscription.accepts
            known = event in accepts or (is_newest and issubclass(event, accepts))
            self._taken[event] = known
        return known

    async def _run(self, envelope: Envelope) -> Exception | None:
        if not self._subscription.after_commit:
            return await self._run_now(envelope)
        transaction = open_transaction()
        if transaction is None:
            return await self._run_now(envelope)
        transaction.defer(partial(self._run_later, envelope))
        return None

    async def _run_later(self, envelope: Envelope) -> None:
        # Its outcome is told to the observers; the emitter has gone on.
        await self._run_now(envelope)

    async def _run_now(self, envelope: Envelope) -> Exception | None:
        wiring, error = self._wiring, None
        audience = self._audiences.of(envelope.name)
        self._tell_begun(audience, envelope)
        started = self._monotonic()
        try:
            with entered(_Inherited(envelope, self._durable)):
                if envelope.expires is not None:
                    self._check_expiry(envelope.expires)
                waiting = self._begun(envelope, started)
                if waiting is not None:
                    await waiting
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - the emitter gets it
            error = self._failure(envelope, exc)
        if error is None:
            self._tell_handled(audience, envelope, self._monotonic() - started)
            return None
        if is_watched(wiring.observe, Settled):
            wiring.observe(self._settled(envelope, error, self._monotonic() - started))
        return await self._ended(envelope, error)

    def _check_expiry(self, expires: datetime) -> None:
        if self._wiring.clock.now() >= expires:
            raise Discard(f"expired at {h.render_time(expires)}")

    def _begun(self, envelope: Envelope, started: float) -> Awaitable[object] | None:
        """Begin the chain, or without one the listener that looks at nothing but the event."""
        if self._bare is None or _asked.get() is not None:
            return self._chain(self._context(envelope))
        one = self._subscription
        call: Awaitable[object] = one.handler(envelope.event, _NO_CONTEXT)
        plain = cast("_Call", call) if type(call) is CoroutineType else _awaiting(call)
        # What never waits can't be ended either, and needs no timer.
        waiting = begin(plain)
        if waiting is None:
            return None
        began = asyncio.get_running_loop().time() - (self._monotonic() - started)
        return self._bare.wait(waiting, began, one.listener)

    async def _ended(self, envelope: Envelope, error: Exception) -> Exception | None:
        """Return what goes to the emitter, once the listener's ``failed`` was told."""
        if isinstance(error, Discard):
            return None
        context = self._context(envelope)
        await tell_failed(
            self._subscription, context, error, self._behind(envelope), self._wiring.observe
        )
        return error

    async def ask(self, envelope: Envelope) -> object:
        """Run it on an event and return its result; raises what it raised."""
        results: list[object] = []
        token = _asked.set(results)
        try:
            error = await self.handle(envelope)
        finally:
            _asked.reset(token)
        if error is not None:
            raise error
        return results[-1] if results else None

    def _failure(
        self, envelope: Envelope, raised: Exception | asyncio.CancelledError
    ) -> Exception:
        one = self._subscription
        try:
            return failure_of(raised, one.listener)
        except asyncio.CancelledError:
            self._wiring.observe(Returned(envelope.name, one.service, one.listener))
            raise

    async def _call(self, context: Context) -> None:
        result = await self._subscription.handler(context.event, context)
        results = _asked.get()
        if results is not None:
            results.append(result)

    def _behind(self, envelope: Envelope) -> Scope:
        return scope_of(envelope, f"{self._subscription.durable}:failed")

    def _tell_begun(self, audience: Audience, envelope: Envelope) -> None:
        count_received(audience)
        one, name = self._subscription, envelope.name
        if audience.received:
            tell(audience.received, Received(name, one.service, one.listener, False))
        if audience.started:
            service, listener, related = one.service, one.listener, envelope.correlation_id
            begun = ListenerStarted(name, envelope.id, service, listener, 1, related)
            tell(audience.started, begun)

    def _tell_handled(self, audience: Audience, envelope: Envelope, duration: float) -> None:
        if audience.counters:
            now, trace = self._wiring.clock.now(), envelope.trace
            elapsed = (now - (envelope.due or envelope.time)).total_seconds()
            traceparent = trace.get("traceparent", "") if trace else ""
            count_handled(audience, duration, elapsed, traceparent)
        if audience.settled:
            tell(audience.settled, self._settled(envelope, None, duration))

    def _settled(self, envelope: Envelope, error: Exception | None, duration: float) -> Settled:
        one, wiring = self._subscription, self._wiring
        outcome = _OK if error is None else Outcome.RAISED
        if isinstance(error, Discard):
            outcome = Outcome.DROPPED
        return Settled(  # by position, which is quicker
            envelope.name,
            envelope.id,
            one.service,
            one.listener,
            outcome,
            1,
            1,
            duration,
            (wiring.clock.now() - (envelope.due or envelope.time)).total_seconds(),
            envelope.correlation_id,
            envelope.causation_id,
            None,
            error.reason if isinstance(error, Discard) else "",
            None,
            error,
            "",
            0,
            wiring.subjects.event(envelope.name),
            envelope.time,
            envelope.trace.get("traceparent", "") if envelope.trace else "",
        )

    def _context(self, envelope: Envelope) -> Context:
        one = self._subscription
        return Context(
            event=envelope.event,
            id=envelope.id,
            name=envelope.name,
            version=envelope.version,
            key=envelope.key,
            time=envelope.time,
            source=envelope.source,
            correlation_id=envelope.correlation_id,
            causation_id=envelope.causation_id,
            attempt=1,
            listener=one.listener,
            service=one.service,
            headers=envelope.headers,
            tags=envelope.tags,
            trace=envelope.trace,
            subject=self._wiring.subjects.event(envelope.name),
            stream="",
            sequence=0,
            emit=self._wiring.emit,
        )


class _Inherited:
    """What the emits of one run inherit; most listeners emit nothing."""

    __slots__ = ("_envelope", "_place", "_scope")

    def __init__(self, envelope: Envelope, place: str) -> None:
        self._envelope = envelope
        self._place = place
        self._scope: Scope | None = None

    def scope(self) -> Scope:
        """Return it, each time the same."""
        if self._scope is None:
            self._scope = scope_of(self._envelope, self._place)
        return self._scope


async def _awaiting(call: Awaitable[object]) -> None:
    await call


def _is_fixed(value: object) -> bool:
    """Tell whether nobody can change a value, so that emitter and listeners may share it."""
    if Data in type(value).__mro__:  # quicker than to ask pydantic's class
        return _are_fixed(vars(value).values())
    if isinstance(value, (tuple, frozenset)):
        return _are_fixed(cast("tuple[object, ...]", value))
    return type(value) in _FIXED or isinstance(value, Enum)


def _are_fixed(values: Iterable[object]) -> bool:
    for one in values:  # noqa: SIM110 - `all` would make a generator of them, for each event
        if type(one) not in _FIXED and not _is_fixed(one):
            return False
    return True
