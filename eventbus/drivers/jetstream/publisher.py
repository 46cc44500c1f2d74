"""Publish: one message, tried with the same id until the server says that it is stored."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from eventbus import headers as h
from eventbus.drivers.base import Receipt
from eventbus.drivers.jetstream.api import Api, ApiError, Table, number, table, text
from eventbus.drivers.jetstream.connection import Connection, pause_after
from eventbus.drivers.jetstream.link import Link, LostError, is_no_responders
from eventbus.drivers.jetstream.wire import Raw, check_headers
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    DriverError,
    EmitUnknown,
    NoStreamError,
    NotConnectedError,
    PayloadTooLargeError,
    PublishError,
    SubjectError,
)
from eventbus.settings import Settings

__all__ = ("DRIVER", "Publisher")

DRIVER = "jetstream"
MESSAGE_ID = "Nats-Msg-Id"
LONGEST_SUBJECT = 1024
"""Far below the server's control line of 4096, over which it ends the connection (T8)."""
LOOK_UP = 1.0
NO_ROOM = frozenset({10023, 10028, 10047, 10077})
"""Insufficient resources, memory or storage; the stream's own limits."""
PASSING = frozenset({10158})
"""The same id is being stored at this moment; refused with a code that says our fault."""
_SERVER_FAULT = 500

_STORED = re.compile(rb'\{"stream":"([^"]+)", ?"seq":(\d+)\}')
_SUBJECT = re.compile(r"[!-)+\-/-=?-~]+(\.[!-)+\-/-=?-~]+)*")


@dataclass(slots=True)
class _Emit:
    """What is known of one message while it is tried."""

    message: Message
    started: float
    sent: int = 0
    unanswered: int = 0
    absent: int = 0
    """Tries that were answered with "no responders"."""
    problem: str = ""

    @property
    def name(self) -> str:
        return self.message.headers.get(h.TYPE) or self.message.subject

    @property
    def id(self) -> str:
        return self.message.id or self.message.headers.get(h.ID, "")


class Publisher:
    """Publishes over whatever link there is; it has no task and no connection of its own."""

    def __init__(self, connection: Connection, api: Api, settings: Settings) -> None:
        self._connection = connection
        self._api = api
        self._patience = settings.emit_timeout
        self._per_try = settings.publish_timeout

    async def publish(self, message: Message, *, headroom: int) -> Receipt:
        """Store a message; see `eventbus.drivers.base.Driver.publish`."""
        headers = self._checked(message, headroom)
        loop = asyncio.get_running_loop()
        emit = _Emit(message, loop.time())
        deadline = emit.started + self._patience
        while (link := await self._connection.link_by(deadline)) is not None:
            within = min(self._per_try, deadline - loop.time())
            raw = await self._try(emit, link, headers, within)
            if raw is not None:
                stored = _STORED.fullmatch(raw.data)
                if stored is not None:
                    return _receipt(emit, stored[1].decode(), int(stored[2]))
                receipt = _considered(emit, raw)
                if receipt is not None:
                    return receipt
                await asyncio.sleep(min(pause_after(emit.sent - emit.unanswered), within))
        raise await self._given_up(emit, loop.time() - emit.started)

    def _checked(self, message: Message, headroom: int) -> Mapping[str, str]:
        """Return the headers to send; what the server would end the connection for stays here."""
        _check_subject(message.subject)
        headers: Mapping[str, str] = message.headers
        if message.id is not None:
            headers = {**headers, MESSAGE_ID: message.id}
        size = len(message.body) + check_headers(headers)
        limit = self._connection.server.max_payload - headroom
        if size > limit:
            name = message.headers.get(h.TYPE) or message.subject
            raise PayloadTooLargeError(name=name, size=size, limit=limit)
        return headers

    async def _try(
        self, emit: _Emit, link: Link, headers: Mapping[str, str], within: float
    ) -> Raw | None:
        message = emit.message
        emit.sent += 1
        try:
            return await link.ask(message.subject, message.body, headers, within=within)
        except TimeoutError:
            emit.unanswered += 1
            emit.problem = f"no answer for {within:.1f} s"
        except LostError as exc:
            emit.unanswered += 1
            emit.problem = str(exc)
        except NotConnectedError as exc:
            emit.sent -= 1
            emit.problem = str(exc)
        return None

    async def _given_up(self, emit: _Emit, after: float) -> DriverError:
        if emit.unanswered:
            return EmitUnknown(name=emit.name, id=emit.id, after=after, tries=emit.sent)
        if not emit.sent:
            return NotConnectedError(
                f"'{emit.name}' {emit.id} wasn't sent: no connection for {after:.1f} s "
                f"({self._connection.problem or emit.problem}); emit it again later"
            )
        if emit.absent == emit.sent and await self._has_no_stream(emit.message.subject):
            return NoStreamError(
                f"'{emit.name}' {emit.id} wasn't stored: no stream takes '{emit.message.subject}'; "
                "create the streams (EVENTBUS_PROVISION=auto does), or check EVENTBUS_NAMESPACE"
            )
        return PublishError(
            f"'{emit.name}' {emit.id} wasn't stored: {emit.problem} ({emit.sent} tries in "
            f"{after:.1f} s); emit it again later"
        )

    async def _has_no_stream(self, subject: str) -> bool:
        try:
            found = await self._api.call("STREAM.NAMES", {"subject": subject}, timeout=LOOK_UP)
        except (ApiError, DriverError, TimeoutError):
            return False
        return not found.get("streams")


@lru_cache(maxsize=4096)
def _check_subject(subject: str) -> None:
    """Refuse what NATS would store literally, answer with a closed connection, or not at all."""
    if len(subject) > LONGEST_SUBJECT:
        problem = f"is {len(subject)} characters long, {LONGEST_SUBJECT} are allowed"
        raise SubjectError(value=f"{subject[:40]}...", problem=problem)
    if not _SUBJECT.fullmatch(subject):
        problem = "can't be published to: use tokens of printable ASCII, without '*' and '>'"
        raise SubjectError(value=subject, problem=problem)


def _receipt(emit: _Emit, stream: str, sequence: int, *, duplicate: bool = False) -> Receipt:
    # After a try without an answer, that try is what the server remembers.
    known = duplicate and not emit.unanswered
    return Receipt(emit.id, stream, sequence, duplicate=known, driver=DRIVER)


def _considered(emit: _Emit, raw: Raw) -> Receipt | None:
    """Return the receipt in an answer that isn't the usual one, None to try again.

    Raises:
        PublishError: The server refused it, and would again.
    """
    if is_no_responders(raw):
        emit.absent += 1
        emit.problem = f"nobody takes '{emit.message.subject}' now"
        return None
    answer = _parsed(emit, raw)
    error = table(answer.get("error"))
    stream = text(answer.get("stream"))
    if not error:
        duplicate = answer.get("duplicate") is True
        return _receipt(emit, stream, number(answer.get("seq")), duplicate=duplicate)
    code, problem = number(error.get("err_code")), text(error.get("description"))
    if code in NO_ROOM:
        raise _certain(emit, BackpressureError(stream=stream or "?", problem=problem))
    if code in PASSING or number(error.get("code")) >= _SERVER_FAULT:
        emit.problem = f"{problem} ({code})"
        return None
    text_ = f"'{emit.name}' {emit.id} wasn't stored: {problem} (error {code} of stream {stream})"
    raise _certain(emit, PublishError(text_))


def _parsed(emit: _Emit, raw: Raw) -> Table:
    try:
        answer = table(json.loads(raw.data))
    except ValueError:
        answer = {}
    if "stream" in answer or "error" in answer:
        return answer
    raise PublishError(
        f"'{emit.name}' {emit.id}: something that isn't a stream answers on "
        f"'{emit.message.subject}'; stop it, or check EVENTBUS_NAMESPACE"
    )


def _certain(emit: _Emit, refused: PublishError) -> PublishError:
    """Return a refusal, unless an earlier try may have been stored or may still be."""
    if not emit.unanswered:
        return refused
    after = asyncio.get_running_loop().time() - emit.started
    unknown = EmitUnknown(name=emit.name, id=emit.id, after=after, tries=emit.sent)
    unknown.__cause__ = refused
    return unknown
