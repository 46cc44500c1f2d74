"""Resolvers: what builds the objects of listener classes, out of functions or a container.

None of them imports a container's package; they ask what they are given.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Annotated, Protocol, TypeVar, cast, get_args, get_origin, get_type_hints

from eventbus.errors import DeclarationError
from eventbus.listener import Resolver
from eventbus.middleware.base import Context

__all__ = ("AsyncContainer", "built_by", "from_dishka", "with_depends")

BuiltT = TypeVar("BuiltT")
_MISSING = inspect.Parameter.empty


class _Scoped(Protocol):
    """A container in the scope of one run."""

    async def get(self, wanted: type[BuiltT], /) -> BuiltT:
        """Return an object of a class."""
        ...


class AsyncContainer(Protocol):
    """What of ``dishka.AsyncContainer`` is used."""

    def __call__(
        self, context: dict[object, object] | None = None, /
    ) -> AbstractAsyncContextManager[_Scoped]:
        """Enter the next scope."""
        ...


def built_by(factory: Callable[[type[object]], object] | None = None) -> Resolver:
    """Return a resolver that calls ``factory(listener)``, async or not; the class itself if None.

    For a container of your own: ``built_by(container.resolve)``.
    """

    @asynccontextmanager
    async def resolve(listener: type[BuiltT], _context: Context, /) -> AsyncGenerator[BuiltT]:
        made: object = listener() if factory is None else factory(listener)
        yield cast("BuiltT", await made if inspect.isawaitable(made) else made)

    return resolve


def from_dishka(container: AsyncContainer) -> Resolver:
    """Return a resolver that asks a dishka container, in a scope of its own for each run.

    The listener classes are provided there like anything else, and so may ask for the `Context`
    that the scope is given: ``provider.from_context(Context, scope=Scope.REQUEST)``.
    """

    @asynccontextmanager
    async def resolve(listener: type[BuiltT], context: Context, /) -> AsyncGenerator[BuiltT]:
        async with container({Context: context}) as scope:
            yield await scope.get(listener)

    return resolve


def with_depends(overrides: Mapping[object, Callable[..., object]] | None = None) -> Resolver:
    """Return a resolver that reads ``Depends(...)`` from constructors, as FastAPI does.

    A parameter's default or its ``Annotated`` says on which function it depends; that may be
    async, a generator whose rest runs when the listener has ended, and depend on others. One that
    several need is called once in a run, unless it says ``use_cache=False``. A parameter that is
    annotated with `Context` gets it. Functions that aren't async run in the event loop.

    Args:
        overrides: What to call instead of a function, for tests.
    """
    replaced = overrides or {}

    @asynccontextmanager
    async def resolve(listener: type[BuiltT], context: Context, /) -> AsyncGenerator[BuiltT]:
        async with AsyncExitStack() as stack:
            solver = _Solver(context, stack, replaced)
            yield cast("BuiltT", await solver.call(listener))

    return resolve


class _Depends(Protocol):
    """What of ``fastapi.Depends`` is used."""

    @property
    def dependency(self) -> Callable[..., object] | None: ...

    @property
    def use_cache(self) -> bool: ...


class _Solver:
    """Calls what one run depends on."""

    def __init__(
        self,
        context: Context,
        stack: AsyncExitStack,
        overrides: Mapping[object, Callable[..., object]],
    ) -> None:
        self._context = context
        self._stack = stack
        self._overrides = overrides
        self._known: dict[object, object] = {}

    async def call(self, function: Callable[..., object]) -> object:
        """Call a function or class with what its parameters depend on."""
        given: dict[str, object] = {}
        hints = _hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            value = await self._value(function, parameter, hints.get(name))
            if value is not _MISSING:
                given[name] = value
        if inspect.isasyncgenfunction(function):
            entered = cast("Callable[..., AsyncGenerator[object]]", function)
            return await self._stack.enter_async_context(asynccontextmanager(entered)(**given))
        if inspect.isgeneratorfunction(function):
            opened = cast("Callable[..., Generator[object]]", function)
            return self._stack.enter_context(contextmanager(opened)(**given))
        made = function(**given)
        return await cast("Awaitable[object]", made) if inspect.iscoroutine(made) else made

    async def _value(
        self, function: Callable[..., object], parameter: inspect.Parameter, hint: object
    ) -> object:
        depends = _depends_in(parameter.default, hint)
        annotation = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if depends is not None:
            wanted = depends.dependency or cast("Callable[..., object]", annotation)
            return await self._depended(self._overrides.get(wanted, wanted), depends.use_cache)
        if annotation is Context:
            return self._context
        if parameter.default is not _MISSING or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            return _MISSING
        raise DeclarationError(
            f"{function.__qualname__}: nothing says what {parameter.name} is; give it "
            "Depends(...), or a default"
        )

    async def _depended(self, wanted: Callable[..., object], use_cache: bool) -> object:
        if not use_cache:
            return await self.call(wanted)
        if wanted not in self._known:
            self._known[wanted] = await self.call(wanted)
        return self._known[wanted]


def _hints(function: Callable[..., object]) -> dict[str, object]:
    own: object = getattr(function, "__init__", None) if isinstance(function, type) else function
    try:
        return get_type_hints(own, include_extras=True)
    except (NameError, TypeError):  # what only type checkers can resolve isn't asked for by type
        return {}


def _depends_in(default: object, hint: object) -> _Depends | None:
    for one in (default, *getattr(hint, "__metadata__", ())):
        if hasattr(one, "dependency") and hasattr(one, "use_cache"):
            return cast("_Depends", one)
    return None
