"""Publish: one message, tried with the same id until the server says that it is stored."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from eventbus import headers as h
from eventbus.drivers.base import HEADROOM, Receipt
from eventbus.drivers.jetstream.api import Api, ApiError, Table, number, table, text
from eventbus.drivers.jetstream.checks import check_headers, check_subject
from eventbus.drivers.jetstream.connection import Connection, pause_after
from eventbus.drivers.jetstream.frame import Stored, stored_in
from eventbus.drivers.jetstream.link import Link, LostError, is_no_responders
from eventbus.drivers.jetstream.peer import Raw
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    DriverError,
    EmitUnknown,
    HeaderError,
    NoStreamError,
    NotConnectedError,
    PayloadTooLargeError,
    PublishError,
    SequenceConflictError,
    SubjectError,
)
from eventbus.settings import Settings

__all__ = ("DRIVER", "Answer", "Publisher")

DRIVER: Final = "jetstream"
LOOK_UP: Final = 1.0
NO_ROOM: Final = frozenset({10023, 10028, 10047, 10077})
"""Insufficient resources, memory or storage; the stream's own limits."""
CONFLICT: Final = 10071
"""Another sequence is the last one on the subject."""
PASSING: Final = frozenset({10158})
"""The same id is being stored at this moment; refused with a code that says our fault."""
_SERVER_FAULT: Final = 500


Answer: TypeAlias = asyncio.Future[Raw]
"""What `Publisher.begin` returns: the server's answer to a message, or why there is none."""
Refused: TypeAlias = Callable[[BackpressureError], Awaitable[BackpressureError]]
"""Explains why there is no room."""


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
        return _name_of(self.message)

    @property
    def id(self) -> str:
        return _id_of(self.message)

    @property
    def failures(self) -> int:
        """Tries that were refused."""
        return self.sent - self.unanswered


class Publisher:
    """Publishes over whatever link there is; it has no task and no connection of its own."""

    def __init__(self, connection: Connection, api: Api, settings: Settings) -> None:
        self._connection = connection
        self._api = api
        self._patience = settings.emit_timeout
        self._per_try = settings.publish_timeout

    async def publish(
        self, message: Message, *, headroom: int = 0, refused: Refused | None = None
    ) -> Receipt:
        """Store a message; see `eventbus.drivers.base.Driver.publish`."""
        started = asyncio.get_running_loop().time()
        answer = self.begin(message, headroom=headroom)
        if answer is None:
            return await self._ended(_Emit(message, started), None, refused)
        try:
            await answer
        except Exception:  # noqa: BLE001 - `end` says what it means
            receipt = None
        else:
            receipt = self.receipt_of(message, answer)
        return receipt or await self.end(message, answer, started, refused)

    def begin(self, message: Message, *, headroom: int = 0) -> Answer | None:
        """Send a message now; see `eventbus.drivers.pipelined.Pipe`."""
        subject, body, headers, id = message.subject, message.body, message.headers, message.id
        self._check(message, headroom)
        link = self._connection.link
        if link is None or link.is_crowded:
            return None
        try:
            return link.ask_by(link.now() + self._per_try, subject, body, headers, id)
        except NotConnectedError:
            return None

    def receipt_of(self, message: Message, answer: Answer) -> Receipt | None:
        """Return the receipt in the usual answer; None where `end` has to consider it."""
        try:
            raw = answer.result()
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - `end` says what it means
            return None
        stored = raw if isinstance(raw, Stored) else stored_in(raw.data)
        if stored is None:
            return None
        stream, sequence = stored.stream.decode(), int(stored.sequence)
        return Receipt(_id_of(message), stream, sequence, False, DRIVER)

    async def end(
        self,
        message: Message,
        answer: Answer,
        started: float,
        refused: Refused | None = None,
    ) -> Receipt:
        """Return once a message that was sent is stored; tries again and raises as `publish`."""
        emit, raw = _Emit(message, started, 1), None
        try:
            raw = await answer
        except (TimeoutError, NotConnectedError) as exc:
            emit = _after(emit, exc, self._per_try)
        return await self._ended(emit, raw, refused)

    async def _ended(self, emit: _Emit, raw: Raw | None, refused: Refused | None) -> Receipt:
        """Return the receipt in the answer to the first try, where there is one, or try again."""
        try:
            receipt = None if raw is None else _considered(emit, raw)
            return receipt or await self._persist(emit)
        except BackpressureError as exc:
            if refused is None:
                raise
            rest = _raised(refused, exc)
        return await rest

    def carried(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages up to the first one that can't be carried."""
        for count, message in enumerate(messages):
            try:
                self.check(message)
            except (PayloadTooLargeError, HeaderError, SubjectError):
                return messages[:count]
        return messages

    def check(self, message: Message) -> None:
        """Refuse an event that can't be carried.

        Raises:
            PayloadTooLargeError, HeaderError, SubjectError: It can't.
        """
        self._check(message, HEADROOM)

    def _check(self, message: Message, headroom: int) -> None:
        """Refuse what the server would end the connection for."""
        check_subject(message.subject)
        size = len(message.body) + check_headers(message.headers, message.id)
        limit = self._connection.server.max_payload - headroom
        if size > limit:
            raise PayloadTooLargeError(name=_name_of(message), size=size, limit=limit)

    async def _persist(self, emit: _Emit) -> Receipt:
        """Try until the emit timeout, counted from the first try."""
        loop = asyncio.get_running_loop()
        deadline = emit.started + self._patience
        while True:
            await self._pause(emit, deadline)
            link = await self._connection.link_by(deadline)
            if link is None:
                raise await self._given_up(emit, loop.time() - emit.started)
            if not await self._has_room(emit, link, deadline):
                continue
            within = min(self._per_try, deadline - loop.time())
            receipt = await self._try(emit, link, within)
            if receipt is not None:
                return receipt

    async def _has_room(self, emit: _Emit, link: Link, deadline: float) -> bool:
        """Wait until a link isn't crowded; False where it is lost, or the time is up."""
        try:
            async with asyncio.timeout_at(deadline):
                await link.room()
        except TimeoutError:
            emit.problem = "too many emits waited for the server"
            return False
        except NotConnectedError as exc:
            emit.problem = str(exc)
            return False
        return True

    async def _pause(self, emit: _Emit, deadline: float) -> None:
        """Wait after a refusal; a try without an answer has waited already."""
        if emit.failures:
            left = deadline - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0, min(pause_after(emit.failures), left)))

    async def _try(self, emit: _Emit, link: Link, within: float) -> Receipt | None:
        """Return the receipt, None to try again.

        Raises:
            PublishError, NotAuthorizedError: The server refused it, and would again.
        """
        message = emit.message
        emit.sent += 1
        try:
            raw = await link.ask(
                message.subject, message.body, message.headers, message.id, within=within
            )
        except (TimeoutError, NotConnectedError) as exc:
            _after(emit, exc, within)
            return None
        return _considered(emit, raw)

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


def _after(emit: _Emit, error: Exception, within: float) -> _Emit:
    """Take note of a try that got no answer."""
    if isinstance(error, NotConnectedError) and not isinstance(error, LostError):
        emit.sent -= 1  # nothing was written
    else:
        emit.unanswered += 1
    emit.problem = str(error) or f"no answer for {within:.1f} s"
    return emit


def _name_of(message: Message) -> str:
    return message.headers.get(h.TYPE) or message.subject


def _id_of(message: Message) -> str:
    """Return the event's id as it was given; on the wire it is percent-encoded."""
    id = message.id or message.headers.get(h.ID, "")
    return h.unquoted(id) if "%" in id else id


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
        # After a try without an answer, that try is what the server remembers.
        duplicate = answer.get("duplicate") is True and not emit.unanswered
        return Receipt(emit.id, stream, number(answer.get("seq")), duplicate, DRIVER)
    code, problem = number(error.get("err_code")), text(error.get("description"))
    if code in NO_ROOM:
        raise _certain(emit, BackpressureError(stream=stream or "?", problem=problem))
    if code == CONFLICT:
        # Checked before the message id: an earlier try may be what it met.
        raise SequenceConflictError(name=emit.name, subject=emit.message.subject)
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


async def _raised(refused: Refused, error: BackpressureError) -> Receipt:
    raise await refused(error) from error


def _certain(emit: _Emit, refused: PublishError) -> PublishError:
    """Return a refusal, unless an earlier try may have been stored or may still be."""
    if not emit.unanswered:
        return refused
    after = asyncio.get_running_loop().time() - emit.started
    unknown = EmitUnknown(name=emit.name, id=emit.id, after=after, tries=emit.sent)
    unknown.__cause__ = refused
    return unknown
