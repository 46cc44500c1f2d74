"""Turns a listener class into the functions that a subscription is made of."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar, get_args, get_origin

from eventbus.errors import DeclarationError
from eventbus.event import Event
from eventbus.listener import Listener, Resolver, running
from eventbus.middleware.base import Context
from eventbus.signature import annotations_of, is_async

__all__ = ("AnyListener", "is_listener_class", "unfolded")

AnyListener: TypeAlias = Callable[..., Awaitable[object]] | type[Listener[Any]]
"""A function or a class."""


def is_listener_class(listener: object) -> bool:
    """Tell whether it is a class to build listeners of."""
    return isinstance(listener, type) and issubclass(listener, Listener)


def unfolded(
    listener: type[Listener[Event]], options: Mapping[str, object], resolver: Resolver
) -> tuple[Callable[..., Awaitable[None]], dict[str, object]]:
    """Return a listener class as a function, and its options with those that are given on top.

    Raises:
        DeclarationError: It has no async ``handle``, or that takes something else than an event.
    """
    name, handle = listener.__name__, listener.handle
    if handle is Listener[Event].handle or not is_async(handle):
        raise DeclarationError(f"listener '{name}' needs 'async def handle(self, event)'")
    takes = annotations_of(handle)
    if len(takes) != 2:
        raise DeclarationError(
            f"listener '{name}': handle must take (self, event); its context is self.context"
        )

    async def run(event: Event, context: Context) -> None:
        with running(context) as collected:
            async with resolver(listener, context) as one:
                await one.handle(event)
        await collected.emit(context.emit)

    async def failed(event: Event, context: Context, error: Exception) -> None:
        with running(context) as collected:
            async with resolver(listener, context) as one:
                await one.failed(event, error)
        await collected.emit(context.emit)

    run.__name__ = run.__qualname__ = name
    annotation = takes[1] if isinstance(takes[1], (type, str)) or get_origin(takes[1]) else None
    run.__annotations__ = {"event": annotation or _argument(listener), "context": Context}
    own = dict(listener.options)
    if listener.failed is not Listener[Event].failed:
        own["failed"] = failed
    return run, {**own, **options}


def _argument(listener: type[Listener[Event]]) -> object:
    """Return the event class in ``Listener[UserCreated]``; `Event` where there is none."""
    for one in listener.__mro__:
        for base in getattr(one, "__orig_bases__", ()):
            if get_origin(base) is Listener:
                (event,) = get_args(base)
                return Event if isinstance(event, TypeVar) else event
    return Event
