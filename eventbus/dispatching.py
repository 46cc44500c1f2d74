"""`Dispatching`: what a service does with its own listeners beside letting events come to them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar, Unpack

from eventbus.answering import Answering, ask
from eventbus.clock import Clock
from eventbus.connections import Connections
from eventbus.correlation import current_scope
from eventbus.drivers.asking import Asking
from eventbus.drivers.base import Receipt
from eventbus.duration import Duration, seconds
from eventbus.envelope import Envelope
from eventbus.errors import DeclarationError, NotConnectedError
from eventbus.event import Event, spec_of
from eventbus.middleware.base import EmitOptions
from eventbus.options import at_least, duration_of
from eventbus.query import Query
from eventbus.roster import Roster
from eventbus.signature import function_name
from eventbus.subject import Subjects, check_pattern, is_pattern, matches
from eventbus.subscription import Subscription

__all__ = ("AnswerDecorator", "Dispatching", "Named")

ReplyT = TypeVar("ReplyT")
QueryT = TypeVar("QueryT", bound=Query[Any])
Named: TypeAlias = str | Subscription | Callable[..., Awaitable[object]]
"""A listener: its name, its record, or its function."""


class AnswerDecorator(Protocol[ReplyT]):
    """Takes an async function of a query, which returns its reply, and gives it back unchanged."""

    def __call__(
        self, function: Callable[[QueryT], Awaitable[ReplyT]], /
    ) -> Callable[[QueryT], Awaitable[ReplyT]]:
        """Answer with it."""
        ...


class Dispatching:
    """The part of `EventService` that is about the listeners of this process."""

    name: str
    _clock: Clock
    _roster: Roster
    _connections: Connections | None

    def __init__(self, name: str) -> None:
        self._answering = Answering(name)
        self._pushed: list[tuple[Event, EmitOptions]] = []

    def listeners(self, event: type[Event] | str | None = None) -> tuple[Subscription, ...]:
        """Return the listeners of this process, in the order of their declaration.

        With an event, those that get it; with a pattern, those that are subscribed to just that.
        """
        if event is None:
            return tuple(self._roster)
        name = event if isinstance(event, str) else spec_of(event).name
        if is_pattern(check_pattern(name)):
            return tuple(one for one in self._roster if one.events == (name,))
        return tuple(one for one in self._roster if _takes(one, name))

    def has_listeners(self, event: type[Event] | str) -> bool:
        """Tell whether a listener of this process gets an event."""
        return bool(self.listeners(event))

    async def until(
        self, event: Event | str, data: Mapping[str, object] | None = None, /
    ) -> object:
        """Ask this process's listeners of an event one after the other; return the first result.

        A result is anything but None, which is returned where no listener has one. They run at
        once, in the order of their declaration, through their middleware; nothing is stored, and
        nothing is tried again.

        Raises:
            NotConnectedError: The service isn't started.
            Exception: What a listener raises; those behind it aren't asked.
        """
        if self._connections is None:
            raise NotConnectedError(f"service '{self.name}' isn't started; start it before until")
        given = self._event(event, data)
        envelope = Envelope.of(
            given, source=self.name, time=self._clock.now(), scope=current_scope()
        )
        for one in self.listeners(envelope.name):
            result = await self._connections.ask(one.listener, envelope)
            if result is not None:
                return result
        return None

    def answer(
        self,
        query: type[Query[ReplyT]],
        /,
        *,
        concurrency: int = 16,
        timeout: Duration = 30.0,
    ) -> AnswerDecorator[ReplyT]:
        """Answer a query with an async function of it, in every process of the service.

        Each query goes to one of them. What it returns is checked against the query's reply; what
        it raises is raised, as `RequestFailedError`, where the query was asked, and so is a run of
        over ``timeout``. What it emits inherits the correlation id of whoever asks.

        Raises:
            DeclarationError: The query or the function isn't one, another one answers it, or the
                service is running.
        """
        if self._connections is not None:
            raise DeclarationError(f"service '{self.name}' is running; answer queries before")

        def decorate(
            function: Callable[[QueryT], Awaitable[ReplyT]], /
        ) -> Callable[[QueryT], Awaitable[ReplyT]]:
            limit = duration_of(function_name(function), "timeout", timeout)
            at_least(function_name(function), "concurrency", concurrency)
            self._answering.add(query, function, concurrency=concurrency, timeout=limit)
            return function

        return decorate

    async def request(
        self,
        query: Query[ReplyT],
        /,
        *,
        timeout: Duration = 5.0,  # noqa: ASYNC109 - within it a reply must come
    ) -> ReplyT:
        """Ask a query and return its reply; nothing is stored and nothing is tried again.

        Args:
            query: The question.
            timeout: How long a reply may take.

        Raises:
            NobodyAnswersError: At once; no service answers it now.
            RequestTimeoutError: No reply in time; it may have been handled.
            RequestFailedError: Whoever answers it raised.
            InvalidEventError: The reply isn't of the declared type.
            NotConnectedError, PayloadTooLargeError, UnsupportedError: It can't be asked.
        """
        within = seconds(timeout)
        return await ask(query, self._asking(), self._subjects(), source=self.name, within=within)

    def _asking(self) -> Asking:
        if self._connections is None:
            raise NotConnectedError(f"service '{self.name}' isn't started; start it before asking")
        return self._connections.default.driver.asking

    async def forget(self, event: type[Event] | str) -> tuple[Subscription, ...]:
        """End the listeners of this process that are subscribed to just this event or pattern.

        Their durables stay, as `unsubscribe` leaves them. Returns those that were ended.
        """
        name = event if isinstance(event, str) else spec_of(event).name
        check_pattern(name)
        ended = tuple(one for one in self._roster if one.events == (name,))
        for one in ended:
            await self.unsubscribe(one)
        return ended

    def push(
        self,
        event: Event | str,
        data: Mapping[str, object] | None = None,
        /,
        **options: Unpack[EmitOptions],
    ) -> None:
        """Hold an event back until `flush`; it is in memory alone, and lost with the process."""
        self._pushed.append((self._event(event, data), options))

    async def flush(self, event: type[Event] | str | None = None) -> list[Receipt]:
        """Emit what was pushed, in its order; with an event or a pattern, only that.

        What an emit raises is raised; that event and those behind it stay pushed.
        """
        name = event if isinstance(event, str) or event is None else spec_of(event).name
        receipts: list[Receipt] = []
        for one in [each for each in self._pushed if name is None or _is(each[0], name)]:
            receipts.append(await self._emit(*one))
            self._pushed.remove(one)
        return receipts

    def forget_pushed(self) -> int:
        """Drop what was pushed; return how many events that were."""
        count = len(self._pushed)
        self._pushed.clear()
        return count

    # What the service has.

    async def unsubscribe(self, listener: Named, *, delete: bool = False) -> None:
        """End a listener."""
        raise NotImplementedError

    def _subjects(self) -> Subjects:
        raise NotImplementedError

    def _event(self, event: Event | str, data: Mapping[str, object] | None) -> Event:
        raise NotImplementedError

    async def _emit(self, event: Event, options: EmitOptions) -> Receipt:
        raise NotImplementedError


def _takes(one: Subscription, name: str) -> bool:
    return any(matches(pattern, name) for pattern in one.events)


def _is(event: Event, name: str) -> bool:
    return matches(name, spec_of(type(event)).name)
