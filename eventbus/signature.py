"""What a listener's signature says: its name, the events it takes, how it is called."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from eventbus.batch import BatchContext, BatchHandler
from eventbus.errors import DeclarationError
from eventbus.event import Event, UnknownEvent
from eventbus.middleware.base import Context
from eventbus.subscription import Handler

__all__ = (
    "annotations_of",
    "any_event",
    "batch_handler_of",
    "event_classes",
    "function_name",
    "handler_of",
    "is_async",
    "items_of",
    "one_by_one",
)


def function_name(listener: Callable[..., Awaitable[object]]) -> str:
    """Return the name of a listener's function or class; empty where it has none."""
    function = _function(listener)
    own = type(listener) if function is type(listener).__call__ else function
    return str(getattr(own, "__name__", ""))


def annotations_of(listener: Callable[..., Awaitable[object]]) -> tuple[object, ...]:
    """Return the annotations of the positional parameters, in order; None for a missing one."""
    hints = _hints(inspect.unwrap(_function(listener)))
    parameters = inspect.signature(listener).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(
        hints.get(one.name)
        for one in parameters
        if one.kind in positional
        and (one.default is one.empty or _is_any_context(hints.get(one.name)))
    )


def _function(listener: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """Return the function that is run: the one inside a partial, or an object's `__call__`."""
    while isinstance(listener, partial):
        listener = listener.func
    return listener if inspect.isroutine(listener) else type(listener).__call__


def _hints(function: Callable[..., Awaitable[object]]) -> dict[str, object]:
    """Return the annotations; one that only type checkers can resolve stays a string."""
    found: dict[str, object] = dict(getattr(function, "__annotations__", {}))
    for name, annotation in found.items():
        alone = SimpleNamespace(__annotations__={name: annotation})
        with suppress(NameError, AttributeError):
            found[name] = get_type_hints(alone, getattr(function, "__globals__", {}))[name]
    return found


def _is_context(annotation: object) -> bool:
    return annotation is Context or (
        isinstance(annotation, str) and annotation.rpartition(".")[2] == "Context"
    )


def _is_any_context(annotation: object) -> bool:
    return _is_context(annotation) or _is_batch_context(annotation)


def _is_batch_context(annotation: object) -> bool:
    named = get_origin(annotation) or annotation
    return named is BatchContext or (isinstance(named, str) and "BatchContext" in named)


def event_classes(annotation: object) -> tuple[type[Event], ...]:
    """Return the event classes that an annotation names; none where it names something else."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(one for part in get_args(annotation) for one in event_classes(part))
    if isinstance(annotation, type) and issubclass(annotation, Event):
        # A listener of UnknownEvent alone would refuse every event that is known.
        return (Event,) if annotation is UnknownEvent else (annotation,)
    return ()


def any_event(listener: str, annotation: tuple[object, ...]) -> tuple[type[Event], ...]:
    """Return what a listener takes whose annotation names no event class of its own.

    Raises:
        DeclarationError: It names something else, or what can't be found at run time.
    """
    (named,) = annotation or (None,)
    if isinstance(named, str) and named.rpartition(".")[2] not in ("Event", "UnknownEvent"):
        raise DeclarationError(
            f"listener '{listener}': the annotation '{named}' can't be resolved; import it "
            "outside of TYPE_CHECKING, at the top of a module"
        )
    if named is not Any and isinstance(named, type) and not issubclass(Event, named):
        raise DeclarationError(
            f"listener '{listener}' takes {named.__name__}, but it gets events; annotate it "
            "with Event or event classes"
        )
    return (Event,)


def handler_of(
    listener: Callable[..., Awaitable[object]], name: str, annotations: tuple[object, ...]
) -> Handler:
    """Return the listener as dispatch calls it: with the event and its context.

    Raises:
        DeclarationError: It isn't async, or takes other parameters than those two.
    """
    _check_callable(listener, name)
    parameters = inspect.signature(listener).parameters
    if len(annotations) == 2 and _is_context(annotations[1]):
        return cast("Handler", listener)
    if len(annotations) != 1 or _is_context(annotations[0]):
        raise DeclarationError(
            f"listener '{name}' must take (event) or (event, context: Context), "
            f"it takes ({', '.join(parameters)})"
        )
    plain = cast("Callable[[Event], Awaitable[object]]", listener)

    def handler(event: Event, _context: Context) -> Awaitable[object]:
        return plain(event)

    return handler


def _check_callable(listener: Callable[..., Awaitable[object]], name: str) -> None:
    if not is_async(listener):
        raise DeclarationError(
            f"listener '{name}' isn't async; write 'async def {name}(event)', or give it a "
            "thread with in_thread()"
        )
    for one in inspect.signature(listener).parameters.values():
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty:
            raise DeclarationError(
                f"listener '{name}' needs {one.name}=, which nobody gives it; bind it with "
                "functools.partial, or give it a default"
            )


def batch_handler_of(
    listener: Callable[..., Awaitable[object]], name: str, annotations: tuple[object, ...]
) -> BatchHandler:
    """Return a listener of batches as dispatch calls it: with the events and their context.

    Raises:
        DeclarationError: It isn't async, or takes other parameters than those two.
    """
    _check_callable(listener, name)
    if len(annotations) == 2 and _is_batch_context(annotations[1]):
        return cast("BatchHandler", listener)
    if len(annotations) != 1 or _is_batch_context(annotations[0]):
        raise DeclarationError(
            f"listener '{name}' has batch=, so it must take (events: list[...]) or "
            "(events: list[...], context: BatchContext)"
        )
    plain = cast("Callable[[list[Event]], Awaitable[None]]", listener)

    async def handler(events: list[Event], _context: BatchContext[Event]) -> None:
        await plain(events)

    return handler


def one_by_one(batch: BatchHandler) -> Handler:
    """Return a listener of batches as one that takes a single event."""

    async def handler(event: Event, context: Context) -> None:
        alone: BatchContext[Event] = BatchContext((context,))
        await batch([event], alone)
        if alone.failures:
            raise alone.failures[0]

    return handler


def items_of(annotation: object) -> object:
    """Return what a listener of batches says its list holds; None where it says no list."""
    if get_origin(annotation) not in (list, Sequence):
        return None
    return get_args(annotation)[0]


def is_async(function: object) -> bool:
    """Tell whether calling it gives a coroutine: an async function, or an object with one."""
    called = getattr(function, "__call__", None)  # noqa: B004 - the method, not whether it exists
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
