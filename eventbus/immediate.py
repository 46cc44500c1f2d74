"""One listener on an event of this process, at once: the chain, the context, the signals."""

import asyncio
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import cast
from uuid import UUID

from eventbus import codec
from eventbus.calling import failure_of, read_for, scope_of, tell_failed
from eventbus.correlation import Scope, entered
from eventbus.delivery import Outcome
from eventbus.envelope import Envelope, Message
from eventbus.errors import CodecError, Discard, SchemaError
from eventbus.event import Data, Event
from eventbus.middleware.base import CallNext, Context, chain
from eventbus.middleware.timeout import Timeout
from eventbus.stores.base import open_transaction
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import ListenerStarted, Received, Returned, Settled, is_watched
from eventbus.wiring import Wiring, layers_of

__all__ = ("ImmediateListener",)

_NO_CONTEXT = cast("Context", None)
"""For handlers that don't look at it."""
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
        self._taken: dict[type[Event], bool] = {}
        layers = layers_of(subscription, wiring)
        self._chain: CallNext = chain(layers, self._call)
        only = layers[0] if len(layers) == 1 else None
        self._bare = only if isinstance(only, Timeout) and not subscription.takes_context else None

    async def handle(self, envelope: Envelope) -> Exception | None:
        """Run it on an event that was emitted in this process."""
        if self._takes(envelope) and _is_fixed(envelope.event):
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
        watched = self._is_watched()
        if self._bare is not None and not watched and _asked.get() is None:
            return await self._run_bare(self._bare, envelope)
        return await self._run_watched(envelope)

    async def _run_bare(self, limit: Timeout, envelope: Envelope) -> Exception | None:
        """Run a listener that nobody watches, and that looks at nothing but the event."""
        one = self._subscription
        try:
            with entered(scope_of(envelope, one.durable)):
                await limit.run(one.handler(envelope.event, _NO_CONTEXT), one.listener)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - the emitter gets it
            return await self._ended(envelope, failure_of(exc, one.listener))
        return None

    async def _run_watched(self, envelope: Envelope) -> Exception | None:
        one, wiring = self._subscription, self._wiring
        context = self._context(envelope)
        watched = self._is_watched()
        if watched:
            self._tell_begun(context)
        started = wiring.clock.monotonic() if watched else 0.0
        error: Exception | None = None
        try:
            with entered(scope_of(envelope, one.durable)):
                await self._chain(context)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - the emitter gets it
            error = self._failure(context, exc)
        if watched:
            duration = wiring.clock.monotonic() - started
            since = envelope.due or envelope.time
            wiring.observe(self._settled(context, error, duration, since))
        return await self._ended(envelope, error)

    async def _ended(self, envelope: Envelope, error: Exception | None) -> Exception | None:
        """Return what goes to the emitter, once the listener's ``failed`` was told."""
        if error is None or isinstance(error, Discard):
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

    def _failure(self, context: Context, raised: Exception | asyncio.CancelledError) -> Exception:
        one = self._subscription
        try:
            return failure_of(raised, one.listener)
        except asyncio.CancelledError:
            self._wiring.observe(Returned(context.name, one.service, one.listener))
            raise

    async def _call(self, context: Context) -> None:
        result = await self._subscription.handler(context.event, context)
        results = _asked.get()
        if results is not None:
            results.append(result)

    def _behind(self, envelope: Envelope) -> Scope:
        return scope_of(envelope, f"{self._subscription.durable}:failed")

    def _is_watched(self) -> bool:
        observe = self._wiring.observe
        return any(is_watched(observe, one) for one in (Received, ListenerStarted, Settled))

    def _tell_begun(self, context: Context) -> None:
        name, service, listener = context.name, context.service, context.listener
        self._wiring.observe(Received(name, service, listener, redelivered=False))
        if is_watched(self._wiring.observe, ListenerStarted):
            self._wiring.observe(
                ListenerStarted(name, context.id, service, listener, 1, context.correlation_id)
            )

    def _settled(
        self, context: Context, error: Exception | None, duration: float, since: datetime
    ) -> Settled:
        outcome = Outcome.OK if error is None else Outcome.RAISED
        if isinstance(error, Discard):
            outcome = Outcome.DROPPED
        return Settled(
            name=context.name,
            id=context.id,
            service=context.service,
            listener=context.listener,
            outcome=outcome,
            attempt=1,
            attempts=1,
            duration=duration,
            end_to_end=(self._wiring.clock.now() - since).total_seconds(),
            correlation_id=context.correlation_id,
            causation_id=context.causation_id,
            detail=error.reason if isinstance(error, Discard) else "",
            error=error,
            subject=context.subject,
            emitted_at=context.time,
            trace=context.trace.get("traceparent", ""),
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


def _is_fixed(value: object) -> bool:
    """Tell whether nobody can change a value, so that emitter and listeners may share it."""
    kind = type(value)
    if kind in _FIXED:
        return True
    if isinstance(value, Data):
        return all(type(one) in _FIXED or _is_fixed(one) for one in vars(value).values())
    if isinstance(value, (tuple, frozenset)):
        return all(map(_is_fixed, cast("tuple[object, ...]", value)))
    return isinstance(value, Enum)
