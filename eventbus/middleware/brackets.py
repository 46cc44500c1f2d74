"""What a middleware may offer beside being called: to begin and to end, with no coroutine between.

It says so with an attribute ``gives_brackets``, which is True.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from typing import Protocol, TypeVar, cast

from eventbus.envelope import Envelope
from eventbus.middleware.base import EmitMiddleware, Middleware

__all__ = (
    "Bracket",
    "EmitBrackets",
    "RunBracket",
    "RunBrackets",
    "brackets_of",
    "run_brackets_of",
)

PatternT = TypeVar("PatternT")


class Bracket(Protocol):
    """What stands around one emit, as a span does. It has begun, and is closed once."""

    @property
    def traceparent(self) -> str:
        """What the event carries, instead of what its scope says."""
        ...

    def about(self, envelope: Envelope) -> None:
        """Take note what is emitted."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make it the active one for a block in which others may look for it."""
        ...

    def close(self, raised: BaseException | None = None) -> None:
        """Take note how the emit has ended."""
        ...


class EmitBrackets(Protocol):
    """An emit middleware that gives what it would do as a bracket."""

    def bracket(self, trace: Mapping[str, str]) -> Bracket | None:
        """Begin, with the trace of the scope; None where it has to be called."""
        ...


class RunBracket(Protocol):
    """What stands around one run of a listener; closed once."""

    def activate(self, variables: Context) -> None:
        """Make it the active one in the context of the run, which is for nothing else."""
        ...

    def close(self, raised: BaseException | None = None) -> None:
        """Take note how the run has ended."""
        ...


class RunBrackets(Protocol[PatternT]):
    """A middleware around listeners that gives what it would do as a bracket."""

    def pattern(
        self, name: str, version: int, subject: str, service: str, listener: str
    ) -> PatternT:
        """Return what brackets have in common that are about one event and listener."""
        ...

    def bracket(
        self,
        pattern: PatternT,
        traceparent: str,
        event_id: str,
        correlation_id: str,
        attempt: int,
    ) -> RunBracket | None:
        """Begin; None where it has to be called."""
        ...


def run_brackets_of(middleware: Middleware) -> RunBrackets[object] | None:
    """Return a middleware that gives brackets; None for others."""
    return cast("RunBrackets[object]", middleware) if _gives(middleware) else None


def brackets_of(middleware: Sequence[EmitMiddleware]) -> EmitBrackets | None:
    """Return the middleware, where it is a single one that gives brackets."""
    only = middleware[0] if len(middleware) == 1 else None
    return cast("EmitBrackets", only) if _gives(only) else None


def _gives(middleware: object) -> bool:
    return getattr(middleware, "gives_brackets", False) is True
