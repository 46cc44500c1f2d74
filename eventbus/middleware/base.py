"""The onion around listeners and emits: `Context`, the two middleware protocols, and chaining."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypedDict, Unpack, overload

from eventbus.drivers.base import Receipt
from eventbus.duration import Duration
from eventbus.envelope import Envelope
from eventbus.errors import DeclarationError
from eventbus.event import Event
from eventbus.record import quick

if TYPE_CHECKING:  # slow to import, and an extra
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = (
    "CallEmit",
    "CallNext",
    "Context",
    "Emit",
    "EmitMiddleware",
    "EmitOptions",
    "Middleware",
    "chain",
    "chain_emit",
)


class EmitOptions(TypedDict, total=False):
    """The options of `EventService.emit`, all by keyword."""

    id: str
    """The event's id; a repeat within the duplicate window is stored once. Made where not given."""
    key: str
    """The ordering key, instead of the value of the class's key field."""
    headers: Mapping[str, str]
    """Headers of your own; names that the bus uses are refused."""
    tags: tuple[str, ...]
    """Labels that travel with it, beside those of its class."""
    correlation_id: str
    """Instead of the inherited one."""
    driver: str
    """The driver it goes through, instead of the one that its class names, else the service's."""
    delay: Duration
    """How long it waits on the server before any listener gets it."""
    at: datetime
    """Until when it waits, aware; a time that has passed is now. Instead of ``delay``."""
    expires: Duration | datetime
    """When listeners need not handle it any more: so long after it is emitted or, if it is
    delayed, after its time; or a time, aware. Instead of the class's."""
    immediate: bool
    """Go direct, also inside of ``events.transaction``: whatever becomes of the transaction."""
    after_commit: bool
    """In a transaction, have listeners of this process (driver ``sync``) run after its commit, and
    not if it rolls back, instead of the class's word. What waits in the outbox does so anyway."""


class Emit(Protocol):
    """`EventService.emit`, as a listener's context carries it."""

    @overload
    async def __call__(self, event: Event, /, **options: Unpack[EmitOptions]) -> Receipt: ...
    @overload
    async def __call__(
        self, event: str, data: Mapping[str, object], /, **options: Unpack[EmitOptions]
    ) -> Receipt: ...


@quick
@dataclass(frozen=True, slots=True)
class Context:
    """What a listener may know of the event it handles, beside its payload."""

    event: Event
    id: str
    """The event's id; the same on every attempt, so usable as an idempotency key (P3)."""
    name: str
    version: int
    key: str | None
    time: datetime
    """When it was emitted, in UTC."""
    source: str
    """The service that emitted it."""
    correlation_id: str
    causation_id: str | None
    attempt: int
    """Which run of the listener this is, from 1."""
    listener: str
    service: str
    headers: Mapping[str, str]
    """The headers that the emitter added, by lower-case name."""
    tags: tuple[str, ...]
    trace: Mapping[str, str]
    """W3C trace headers as they came."""
    subject: str
    stream: str
    sequence: int
    emit: Emit = field(repr=False, compare=False)
    """Emit from here; the same as ``events.emit`` while the listener runs."""
    is_replay: bool = False
    """It was handed out before, and comes again because somebody called ``events.replay``."""
    database: "AsyncSession | None" = field(default=None, repr=False, compare=False)
    """The session of an inbox; `session` is the same, where there is one."""

    @property
    def session(self) -> "AsyncSession":
        """The transaction of the listener's inbox, as a session of SQLAlchemy.

        It commits with the mark that the event is handled, after the listener returned, and rolls
        back where it raises; begin, commit and roll back nothing yourself.

        Raises:
            DeclarationError: The listener has no ``inbox=True``.
        """
        if self.database is None:
            raise DeclarationError(
                f"listener '{self.listener}' has no session; subscribe it with inbox=True"
            )
        return self.database


CallNext: TypeAlias = Callable[[Context], Awaitable[None]]
CallEmit: TypeAlias = Callable[[Envelope], Awaitable[Receipt]]


class Middleware(Protocol):
    """Wraps a listener's run: do something, ``await call_next(context)``, do something.

    What it raises counts as raised by the listener. It can't settle; only dispatch does.
    """

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain, or not."""
        ...


class EmitMiddleware(Protocol):
    """Wraps an emit; may pass on a changed envelope (``dataclasses.replace``)."""

    async def __call__(self, envelope: Envelope, call_next: CallEmit) -> Receipt:
        """Run the rest of the chain and return its receipt."""
        ...


def chain(middleware: Sequence[Middleware], last: CallNext) -> CallNext:
    """Wrap ``last``; the first middleware is the outermost."""
    for layer in reversed(middleware):
        last = _around(layer, last)
    return last


def _around(layer: Middleware, inner: CallNext) -> CallNext:
    async def call(context: Context) -> None:
        await layer(context, inner)

    return call


def chain_emit(middleware: Sequence[EmitMiddleware], last: CallEmit) -> CallEmit:
    """Wrap ``last``; the first middleware is the outermost."""
    for layer in reversed(middleware):
        last = _around_emit(layer, last)
    return last


def _around_emit(layer: EmitMiddleware, inner: CallEmit) -> CallEmit:
    async def call(envelope: Envelope) -> Receipt:
        return await layer(envelope, inner)

    return call
