"""`Answering`: the questions that a service answers; `ask` sends one and reads the reply."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from eventbus import headers as h
from eventbus.correlation import Scope, current_scope, entered
from eventbus.drivers.asking import Asking, Stop
from eventbus.envelope import Message
from eventbus.errors import (
    DeclarationError,
    InvalidEventError,
    RequestFailedError,
    error_type,
)
from eventbus.ids import uuid7
from eventbus.query import Query, query_spec_of, reply_adapter
from eventbus.signature import annotations_of, is_async
from eventbus.subject import Subjects

__all__ = ("Answering", "ask")

ReplyT = TypeVar("ReplyT")
FAILED = "eventbus-error-type"
PROBLEM = "eventbus-error-message"
MAX_REPLY = 1_000_000
"""Bytes of a reply; the servers' own limit is 1 MiB unless set."""
_LONGEST_PROBLEM = 300


@dataclass(frozen=True, slots=True)
class _Answered:
    query: type[Query[Any]]
    function: Callable[[Any], Awaitable[object]]
    room: asyncio.Semaphore
    timeout: float


class Answering:
    """What a service answers; entered, it does."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._answered: dict[str, _Answered] = {}
        self._stops: list[Stop] = []
        self._asking: Asking | None = None
        self._subjects = Subjects()

    def add(
        self,
        query: type[Query[Any]],
        function: Callable[[Any], Awaitable[object]],
        *,
        concurrency: int,
        timeout: float,
    ) -> None:
        """Answer a query with an async function of it.

        Raises:
            DeclarationError: The query has no name, the function isn't async or takes something
                else, or another one answers that query.
        """
        name = query_spec_of(query).name
        takes = annotations_of(function)
        if not is_async(function) or len(takes) != 1 or takes[0] not in (query, None):
            raise DeclarationError(
                f"what answers '{name}' must be 'async def answer(query: {query.__name__})'"
            )
        if name in self._answered:
            raise DeclarationError(f"service '{self._service}' answers '{name}' twice")
        room = asyncio.Semaphore(concurrency)
        self._answered[name] = _Answered(query, function, room, timeout)

    def through(self, asking: Callable[[], Asking], subjects: Subjects) -> Self:
        """Return it, to be entered for one run of the service."""
        self._asking = asking() if self._answered else None
        self._subjects = subjects
        return self

    async def __aenter__(self) -> Self:
        """Take questions from now on."""
        for name, one in self._answered.items():
            assert self._asking is not None, "through() comes first"
            stop = await self._asking.answer(
                self._subjects.ask(name), self._service, _answer_of(one)
            )
            self._stops.append(stop)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Take no more, and let what runs finish."""
        stops, self._stops = self._stops, []
        await asyncio.gather(*(stop() for stop in stops))


def _answer_of(one: _Answered) -> Callable[[Message], Awaitable[Message]]:
    async def answer(message: Message) -> Message:
        try:
            async with one.room, asyncio.timeout(one.timeout):
                body = await _replied(one, message)
        except Exception as exc:  # noqa: BLE001 - whoever asked is told
            return _failure(message, exc)
        return Message(message.subject, {h.CONTENT_TYPE: h.JSON}, body)

    return answer


async def _replied(one: _Answered, message: Message) -> bytes:
    query = one.query.__pydantic_validator__.validate_json(message.body, extra="ignore")
    headers = message.headers
    trace = {name: headers[name] for name in h.TRACE if name in headers}
    scope = Scope(correlation_id=headers.get(h.CORRELATION_ID), trace=trace)
    with entered(scope):
        result = await one.function(query)
    # Checked too: a reply of another type would fail with whoever asked.
    adapter = reply_adapter(one.query)
    body = adapter.dump_json(adapter.validate_python(result))
    if len(body) > MAX_REPLY:
        raise ValueError(f"the reply has {len(body)} bytes, {MAX_REPLY} are allowed")
    return body


def _failure(message: Message, error: Exception) -> Message:
    problem = " ".join(str(error).split())[:_LONGEST_PROBLEM]
    headers = {FAILED: error_type(error), PROBLEM: h.quoted(problem)}
    return Message(message.subject, headers, b"")


async def ask(
    query: Query[ReplyT],
    asking: Asking,
    subjects: Subjects,
    *,
    source: str,
    within: float,
) -> ReplyT:
    """Send a question and return its reply.

    Raises:
        NobodyAnswersError: Nobody answers it now.
        RequestTimeoutError: No reply within so many seconds.
        RequestFailedError: Whoever answers it raised.
        InvalidEventError: The reply isn't of the declared type.
    """
    name, scope, id = query_spec_of(type(query)).name, current_scope(), uuid7()
    headers = {
        h.ID: id,
        h.TYPE: name,
        h.SOURCE: source,
        h.CORRELATION_ID: scope.correlation_id or id,
        h.CONTENT_TYPE: h.JSON,
        **scope.trace,
    }
    body = query.__pydantic_serializer__.to_json(query, by_alias=True)
    reply = await asking.ask(Message(subjects.ask(name), headers, body), within=within)
    if FAILED in reply.headers:
        problem = h.unquoted(reply.headers.get(PROBLEM, ""))
        raise RequestFailedError(name=name, error=reply.headers[FAILED], problem=problem)
    try:
        read: ReplyT = reply_adapter(type(query)).validator.validate_json(
            reply.body, extra="ignore"
        )
    except ValidationError as exc:
        problems = [
            (".".join(map(str, one["loc"])), one["msg"])
            for one in exc.errors(include_input=False, include_url=False)
        ]
        raise InvalidEventError(name=f"the reply to {name}", problems=problems) from exc
    return read
