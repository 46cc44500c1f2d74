"""`Admin`: reads what streams and durables hold, for operators' tools; it changes nothing."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from eventbus.drivers.jetstream import api as codes
from eventbus.drivers.jetstream.api import Api, ApiError, Table, number, table, text, translated
from eventbus.drivers.jetstream.durables import beside_of, filters_in, found_durable, listener_of
from eventbus.drivers.jetstream.streams import declared_streams
from eventbus.envelope import Message
from eventbus.errors import DriverError
from eventbus.headers import lowered, parse_time, render_time
from eventbus.settings import Settings
from eventbus.subject import matches

__all__ = (
    "Admin",
    "ConsumerView",
    "Ending",
    "Line",
    "Replies",
    "Reply",
    "Stored",
    "StreamView",
    "replies",
    "stored_of",
)

_BATCH = 256
_BATCH_BYTES = 8 * 1024 * 1024
_PATIENCE = 5.0
_ALL_FEATURES = 1_000
_MESSAGE_ID = "nats-msg-id"
_ADDED = (
    "nats-stream",
    "nats-subject",
    "nats-sequence",
    "nats-time-stamp",
    "nats-num-pending",
    "nats-last-sequence",
)
"""What a direct get adds to the headers of a stored message."""


class Reply(Protocol):
    """One of several answers to a request."""

    @property
    def data(self) -> bytes:
        """The body."""
        ...

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The headers, and ``Status`` for a status."""
        ...


class Ending(Protocol):
    """Interest that can be ended."""

    async def drain(self, patience: float) -> None:
        """End it."""
        ...


class Line(Protocol):
    """What of a connection it takes to get several answers."""

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        ...

    async def subscribe(self, subject: str, take: Callable[[Reply], None]) -> Ending:
        """Hand every message on a subject to ``take``."""
        ...

    def send(self, subject: str, body: bytes, reply: str = "") -> None:
        """Write a message."""
        ...


Replies: TypeAlias = Callable[[str, bytes], AsyncGenerator[Reply, None]]
"""``replies(subject, payload)`` yields each answer to a request, until the caller leaves."""


@dataclass(frozen=True, slots=True)
class StreamView:
    """What a stream holds."""

    name: str
    messages: int
    bytes: int
    max_bytes: int | None
    """None for no limit."""
    first_sequence: int
    last_sequence: int
    durables: int

    @property
    def fill(self) -> float | None:
        """The used part of its room, from 0 to 1; None where it has no limit."""
        return None if self.max_bytes is None else self.bytes / self.max_bytes


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """How far a durable is."""

    durable: str
    service: str
    """Empty for a durable that isn't the bus's."""
    listener: str
    filters: tuple[str, ...]
    """Empty for all subjects of the stream."""
    pending: int
    """How many it hasn't handed out."""
    ack_pending: int
    """How many are handed out and not settled."""
    redelivered: int
    """How many of those were handed out before."""
    waiting: int
    """Pull requests that wait for events; 0 where nobody works."""
    paused: bool
    beside: str = ""
    """The durable whose listener it works, for the events of one priority; empty for its own."""

    def takes(self, subject: str) -> bool:
        """Tell whether its filters match a subject."""
        return not self.filters or any(matches(one, subject) for one in self.filters)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message and its place in a stream."""

    stream: str
    sequence: int
    time: datetime
    """When the server stored it, in UTC."""
    message: Message


class Admin:
    """The read-only view of one namespace.

    Everything here raises `DriverError` where the server can't say now, and `TopologyError` where
    it refuses.
    """

    def __init__(self, api: Api, settings: Settings, replies: Replies) -> None:
        self._api = api
        self._settings = settings
        self._replies = replies

    async def streams(self) -> tuple[StreamView, ...]:
        """Return the streams of the namespace that exist."""
        declared = declared_streams(self._settings, _ALL_FEATURES)
        views: list[StreamView] = []
        for name in (text(one["name"]) for one in declared):
            info = await self._found(f"STREAM.INFO.{name}", f"stream {name}")
            if info is not None:
                views.append(_stream_view(info))
        return tuple(views)

    async def consumers(self) -> tuple[ConsumerView, ...]:
        """Return the durables on the stream of events, also those of others, by name."""
        stream = self._settings.subjects.stream
        listed = self._api.items(f"CONSUMER.LIST.{stream}", "consumers")
        with translated(f"durables of stream {stream}"):
            try:
                views = [_consumer_view(info) async for info in listed]
            except ApiError as exc:
                if exc.err_code != codes.STREAM_NOT_FOUND:
                    raise
                return ()
        return tuple(sorted(views, key=lambda view: view.durable))

    async def listeners_of(self, name: str) -> tuple[str, ...]:
        """Return the durables that an event of that name is handed to; none: nobody listens."""
        subject = self._settings.subjects.event(name)
        return tuple(view.durable for view in await self.consumers() if view.takes(subject))

    async def message(self, stream: str, sequence: int) -> Message | None:
        """Return a stored message, None where there is none (any more)."""
        thing = f"message {sequence} of stream {stream}"
        verb, body = f"STREAM.MSG.GET.{stream}", {"seq": sequence}
        answer = await self._found(verb, thing, body)
        if answer is None:
            return None
        return stored_of(stream, table(answer.get("message"))).message

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the newest message on a subject; None where there is none."""
        thing = f"'{subject}' of stream {stream}"
        verb, body = f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject}
        answer = await self._found(verb, thing, body)
        if answer is None:
            return None
        return stored_of(stream, table(answer.get("message")))

    async def messages(
        self,
        stream: str,
        subject: str = ">",
        start: int | datetime = 1,
        limit: int | None = None,
    ) -> AsyncIterator[Stored]:
        """Yield what a stream holds on a subject, which may be a pattern, the oldest first.

        Args:
            stream: Where to read.
            subject: What to read.
            start: Sequence or time of the first one.
            limit: How many at most; None for all that is there when reading gets to it.
        """
        count = 0
        place: Mapping[str, object] = _place(start)
        while place and (limit is None or count < limit):
            page, place = await self._page(stream, subject, place)
            for one in page[: None if limit is None else limit - count]:
                count += 1
                yield one

    async def _page(
        self, stream: str, subject: str, place: Mapping[str, object]
    ) -> tuple[list[Stored], Mapping[str, object]]:
        """Return one batch, and where the next one begins; empty for nowhere."""
        ask = {"batch": _BATCH, "max_bytes": _BATCH_BYTES, "next_by_subj": subject, **place}
        page: list[Stored] = []
        answers = self._replies(f"$JS.API.DIRECT.GET.{stream}", json.dumps(ask).encode())
        async with aclosing(answers):
            async for reply in answers:
                headers = lowered(reply.headers or {})
                if "status" in headers:
                    return page, _next_place(stream, headers, page)
                page.append(_stored(headers, reply.data))
        return page, {}

    async def _found(
        self, verb: str, thing: str, body: Mapping[str, object] | None = None
    ) -> Table | None:
        with translated(thing):
            try:
                return await self._api.call(verb, body)
            except ApiError as exc:
                if exc.err_code in (codes.STREAM_NOT_FOUND, codes.MESSAGE_NOT_FOUND):
                    return None
                raise


async def replies(line: Line, subject: str, payload: bytes) -> AsyncGenerator[Reply, None]:
    """Yield each answer to a request, until the caller leaves.

    Raises:
        DriverError: The next one didn't come within 5 s.
        NotConnectedError: There is no connection.
    """
    arrived: asyncio.Queue[Reply] = asyncio.Queue()
    inbox = line.new_inbox()
    interest = await line.subscribe(inbox, arrived.put_nowait)
    try:
        line.send(subject, payload, inbox)
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    reply = await arrived.get()
            except TimeoutError as exc:
                problem = f"no answer to {subject} within {_PATIENCE:g} s"
                raise DriverError(f"{problem}; check the permission, or try again") from exc
            yield reply
    finally:
        await interest.drain(1)


def _place(start: int | datetime) -> Mapping[str, object]:
    if isinstance(start, datetime):
        return {"start_time": render_time(start)}
    return {"seq": max(1, start)}


def _next_place(
    stream: str, status: Mapping[str, str], page: list[Stored]
) -> Mapping[str, object]:
    if status["status"] not in ("204", "404"):
        problem = f"{status['status']} {status.get('description', '').strip()}"
        raise DriverError(f"stream {stream} can't be read: {problem}")
    more = status.get("nats-num-pending", "0") != "0"
    return {"seq": page[-1].sequence + 1} if page and more else {}


def _stored(headers: Mapping[str, str], body: bytes) -> Stored:
    """Read an answer to a direct get; what it added to the headers isn't the message's."""
    own = {name: value for name, value in headers.items() if name not in _ADDED}
    return Stored(
        stream=headers.get("nats-stream", ""),
        sequence=int(headers.get("nats-sequence", "0")),
        time=_time(headers.get("nats-time-stamp", "")),
        message=Message(headers.get("nats-subject", ""), own, body, own.get(_MESSAGE_ID)),
    )


def stored_of(stream: str, answer: Table) -> Stored:
    """Return the message in the API's answer to a question for one."""
    headers = _headers(base64.b64decode(text(answer.get("hdrs"))))
    body = base64.b64decode(text(answer.get("data")))
    message = Message(text(answer.get("subject")), headers, body, headers.get(_MESSAGE_ID))
    return Stored(stream, number(answer.get("seq")), _time(text(answer.get("time"))), message)


def _headers(block: bytes) -> dict[str, str]:
    """Return the headers in a block; values may hold what ``splitlines`` would split at."""
    lines = block.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.lower(): value.strip(" \t") for name, _, value in pairs}


def _time(value: str) -> datetime:
    return parse_time(value) or datetime.fromtimestamp(0, UTC)


def _stream_view(info: Table) -> StreamView:
    config, state = table(info.get("config")), table(info.get("state"))
    limit = number(config.get("max_bytes"))
    return StreamView(
        name=text(config.get("name")),
        messages=number(state.get("messages")),
        bytes=number(state.get("bytes")),
        max_bytes=limit if limit > 0 else None,
        first_sequence=number(state.get("first_seq")),
        last_sequence=number(state.get("last_seq")),
        durables=number(state.get("consumer_count")),
    )


def _consumer_view(info: Table) -> ConsumerView:
    config = found_durable(info)
    service, listener = listener_of(config)
    return ConsumerView(
        durable=text(info.get("name")),
        service=service,
        listener=listener,
        filters=filters_in(config),
        pending=number(info.get("num_pending")),
        ack_pending=number(info.get("num_ack_pending")),
        redelivered=number(info.get("num_redelivered")),
        waiting=number(info.get("num_waiting")),
        paused=info.get("paused") is True,
        beside=beside_of(config),
    )
