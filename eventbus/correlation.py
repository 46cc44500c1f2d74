"""What an emit inherits from where it happens: correlation, cause, trace, and its id."""

from collections import Counter
from collections.abc import Coroutine, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from eventbus.driving import Begun, begin_where
from eventbus.ids import derived_id, uuid7
from eventbus.record import quick

__all__ = (
    "NO_TRACE",
    "Handled",
    "Scope",
    "Scoped",
    "begin_in",
    "current_scope",
    "entered",
    "running",
)

NO_TRACE: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class Handled:
    """The event that a listener is handling now; the source of ids for what it emits.

    Ids repeat when the listener runs again and emits the same, and differ for everything else
    (ADR 0014). The counter tells identical emits of one run apart.
    """

    id: str
    durable: str
    redrive: int = 0
    _ordinals: Counter[str] | None = None

    def next_id(self, name: str, key: str | None, body: bytes) -> str:
        """Return the id for an emit of this listener run."""
        base = derived_id(self.id, self.durable, self.redrive, name, key or "", body)
        if self._ordinals is None:  # few listeners emit
            self._ordinals = Counter()
        ordinal = self._ordinals[base]
        self._ordinals[base] += 1
        return base if ordinal == 0 else derived_id(base, ordinal)


@quick
@dataclass(frozen=True, slots=True)
class Scope:
    """Where an emit happens: inside a listener, or inside a request."""

    correlation_id: str | None = None
    causation_id: str | None = None
    trace: Mapping[str, str] = field(default_factory=lambda: NO_TRACE)
    handled: Handled | None = None

    def id_for(self, name: str, key: str | None, body: bytes) -> str:
        """Return a derived id inside a listener, a fresh one outside."""
        return uuid7() if self.handled is None else self.handled.next_id(name, key, body)


class Scoped(Protocol):
    """What makes its scope when somebody asks; most listeners emit nothing."""

    def scope(self) -> Scope:
        """Return it, each time the same."""
        ...


_NOWHERE: Final = Scope()
_current: Final[ContextVar[Scope | Scoped]] = ContextVar("eventbus_scope", default=_NOWHERE)


def current_scope() -> Scope:
    """Return the scope of the running task; an empty one outside listeners and requests."""
    current = _current.get()
    return current if isinstance(current, Scope) else current.scope()


def running(scoped: Scoped) -> Context:
    """Return a copy of the current context in which something else's scope is the current one."""
    context = copy_context()
    context.run(_current.set, scoped)
    return context


def begin_in(scoped: Scoped, coroutine: Coroutine[object, object, object]) -> Begun | None:
    """Begin a coroutine as `driving.begin` does, in a context of its own with another scope."""
    return begin_where(coroutine, _current, scoped)


def entered(scope: Scope | Scoped) -> "_Entered":
    """Make a scope the current one for the duration of a block, tasks started in it included."""
    return _Entered(scope)


class _Entered:
    """What `entered` returns; a generator would cost more than what it does."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: Scope | Scoped) -> None:
        self._scope = scope

    def __enter__(self) -> Scope | Scoped:
        self._token = _current.set(self._scope)
        return self._scope

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
