"""The listeners of one service: each declared once, chosen by queue, checked before it works."""

from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import TypeAlias, cast

from eventbus.classes import AnyListener, is_listener_class, unfolded
from eventbus.containers import built_by
from eventbus.declaration import subscription
from eventbus.errors import DeclarationError, DuplicateSubscriptionError, did_you_mean
from eventbus.event import Event
from eventbus.listener import Listener, Resolver
from eventbus.priorities import by_priority
from eventbus.registry import Registry
from eventbus.signature import function_name
from eventbus.subscribing import ListenerOptions
from eventbus.subscription import EventT, Subscription

__all__ = ("DefaultQueue", "Roster", "bind")

DefaultQueue: TypeAlias = Callable[[Subscription], str]
"""Gives the queue of a listener that names none."""


class Roster:
    """What a service has declared so far, by listener."""

    def __init__(self, service: str, resolver: Resolver | None = None) -> None:
        self._service = service
        self._resolver = resolver or built_by()
        self._subscriptions: dict[str, Subscription] = {}

    def __iter__(self) -> Iterator[Subscription]:
        """Iterate over the subscriptions, in the order of their declaration."""
        return iter(tuple(self._subscriptions.values()))

    def declare(
        self,
        event: type[Event] | str,
        listener: AnyListener,
        options: ListenerOptions[EventT],
    ) -> Subscription:
        """Add a listener.

        Raises:
            DeclarationError, SubjectError: It is declared wrongly.
            DuplicateSubscriptionError: The service has one of that name.
        """
        if is_listener_class(listener):
            of_class = cast("type[Listener[Event]]", listener)
            listener, unchecked = unfolded(of_class, options, self._resolver)
            options = cast("ListenerOptions[EventT]", unchecked)
        one = subscription(
            self._service, event, cast("Callable[..., Awaitable[object]]", listener), options
        )
        if one.listener in self._subscriptions:
            raise DuplicateSubscriptionError(service=self._service, listener=one.listener)
        self._subscriptions[one.listener] = one
        return one

    def get(self, listener: str) -> Subscription | None:
        """Return the listener of that name; None where there is none."""
        return self._subscriptions.get(listener)

    def named(
        self, listener: str | Subscription | Callable[..., Awaitable[object]]
    ) -> Subscription:
        """Return a listener by its name, its record, or its function.

        Raises:
            DeclarationError: There is none of that name.
        """
        if isinstance(listener, Subscription):
            name = listener.listener
        else:
            name = listener if isinstance(listener, str) else function_name(listener)
        found = self._subscriptions.get(name)
        if found is None:
            known = ", ".join(self._subscriptions) or "none"
            hint = did_you_mean(name, self._subscriptions)
            raise DeclarationError(
                f"service '{self._service}' has no listener '{name}' (it has {known}){hint}"
            )
        return found

    def remove(self, listener: str) -> None:
        """Forget a listener."""
        self._subscriptions.pop(listener, None)

    def redeclare(self, one: Subscription) -> None:
        """Put a changed record in the place of the one of that listener."""
        self._subscriptions[one.listener] = one

    def queues(self, default: DefaultQueue) -> frozenset[str]:
        """Return the queues that they belong to; ``default`` gives that of one that names none."""
        return frozenset(one.queue or default(one) for one in self)

    def keep_only(self, queues: Collection[str], default: DefaultQueue) -> None:
        """Forget the listeners of all other queues."""
        self._subscriptions = {
            one.listener: one for one in self if (one.queue or default(one)) in queues
        }

    def bind_all(self, registry: Registry, discover: Callable[[], Registry]) -> None:
        """Bind every listener, and split those whose events differ in priority; raises as `bind`."""
        self._subscriptions = {one.listener: one for one in self if not one.beside}
        for one in self:
            one.register(registry)  # first: who takes a base class takes the others' events too
        for one in self:
            for each in by_priority(self.bind(one, registry, discover), registry):
                self._put(each, one)

    def _put(self, one: Subscription, declared: Subscription) -> None:
        known = self._subscriptions.get(one.listener)
        is_mine = known is None or one.listener == declared.listener or known.beside == one.beside
        if not is_mine:
            raise DuplicateSubscriptionError(service=self._service, listener=one.listener)
        self._subscriptions[one.listener] = one

    def bind(
        self, one: Subscription, registry: Registry, discover: Callable[[], Registry]
    ) -> Subscription:
        """Make a listener's events known, check it against all that is declared, and return it.

        ``discover`` is called only where more must be known than its own classes.

        Raises:
            DeclarationError, UnknownEventError, IncompatibleSchemaError: It doesn't fit them.
        """
        one = bind(one, registry, discover)
        self._subscriptions[one.listener] = one
        return one


def bind(one: Subscription, registry: Registry, discover: Callable[[], Registry]) -> Subscription:
    """Return a listener with the names of what it takes; raises as `Roster.bind`."""
    one.register(registry)
    if one.needs(registry):
        discover()
    one = one.bound(registry)
    one.check(registry)
    registry.check()
    return one
