"""Read a message for a listener, and call the user's code: what it raises comes back as a value."""

import asyncio
from collections.abc import Awaitable
from datetime import datetime

from eventbus import codec
from eventbus.correlation import Handled, Scope, entered
from eventbus.envelope import Envelope, Message
from eventbus.errors import UpcastError
from eventbus.kinds import StateDeleted
from eventbus.middleware.base import Context
from eventbus.owner import error_of, go_on, has_cancelled_itself, is_cancelled
from eventbus.registry import Registry
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import FailedHookRaised, Observer

__all__ = ("failed_with", "failure_of", "raised_by", "read_for", "scope_of", "tell_failed")


def scope_of(envelope: Envelope, place: str, redrive: int = 0) -> Scope:
    """Return what is inherited from a handled event; ids repeat for an equal place and redrive."""
    handled = Handled(envelope.id, place, redrive)
    return Scope(envelope.correlation_id, envelope.id, envelope.trace, handled)


def read_for(
    one: Subscription, message: Message, name: str, registry: Registry, *, received: datetime
) -> Envelope:
    """Return the envelope in a message, with an event of a class that the listener takes.

    Raises:
        CodecError, SchemaError: As `eventbus.codec.decode`; UpcastError where it would get
            another class of that event.
    """
    envelope = codec.decode(
        message,
        name,
        registry,
        received=received,
        accepts=one.accepts,
        unknown=one.takes_any,
    )
    # That it is gone is no event of theirs, but no mistake either: dispatch lets it pass.
    if not isinstance(envelope.event, (*one.accepts, StateDeleted)):
        takes = " | ".join(event.__name__ for event in one.accepts)
        raise UpcastError(
            f"listener '{one.listener}' takes {takes}, but '{envelope.name}' version "
            f"{envelope.version} is a {type(envelope.event).__name__}"
        )
    return envelope


async def raised_by(call: Awaitable[None], listener: str) -> Exception | None:
    """Return what the user's code raises; a cancellation from outside passes through."""
    try:
        await call
    except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - that is what is asked
        return await failed_with(exc, listener)
    if has_cancelled_itself():
        await go_on()
    return None


async def failed_with(raised: Exception | asyncio.CancelledError, listener: str) -> Exception:
    """Return what the user's code has failed with, and let a task go on that it has cancelled.

    Raises:
        CancelledError: As `failure_of`.
    """
    if has_cancelled_itself():
        await go_on()
    return failure_of(raised, listener)


def failure_of(raised: Exception | asyncio.CancelledError, listener: str) -> Exception:
    """Return what the user's code has failed with; call it where that is handled.

    Raises:
        CancelledError: The task was cancelled from outside; what it raises on its way out isn't a
            failure.
    """
    if is_cancelled():
        if isinstance(raised, asyncio.CancelledError):
            raise raised
        raise asyncio.CancelledError from raised
    if isinstance(raised, Exception):
        return raised
    return error_of(raised, listener)


async def tell_failed(
    one: Subscription, context: Context, error: Exception, scope: Scope, observe: Observer
) -> None:
    """Call the listener's ``failed``, where it has one, in a scope and within its time limit."""
    hook = one.failed
    if hook is None:
        return

    async def call() -> None:
        async with asyncio.timeout(one.timeout):
            await hook(context.event, context, error)

    with entered(scope):
        raised = await raised_by(call(), one.listener)
    if raised is not None:
        observe(FailedHookRaised(context.name, context.id, one.service, one.listener, raised))
