"""`Batches`: a mark and messages that a stream stores together, or not at all (ADR-50)."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import uuid4

from eventbus import headers as h
from eventbus.drivers.atomic import Mark, check_same
from eventbus.drivers.base import Receipt
from eventbus.drivers.jetstream.admin import Admin
from eventbus.drivers.jetstream.api import Table, number, table, text
from eventbus.drivers.jetstream.connection import Connection, pause_after
from eventbus.drivers.jetstream.link import Link, LostError, is_no_responders
from eventbus.drivers.jetstream.peer import Raw
from eventbus.drivers.jetstream.publisher import CONFLICT, DRIVER, NO_ROOM, PASSING, Publisher
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    DriverError,
    NoStreamError,
    NotAuthorizedError,
    NotConnectedError,
    PublishError,
    SequenceConflictError,
)
from eventbus.settings import Settings

__all__ = ("Batches",)

AT_ONCE = 16
"""Batches that one process has open; a stream takes 50 from all."""
DISABLED = 10174
KNOWN_ID = 10201
"""One of the ids is stored already, or twice in the batch."""
BUSY = frozenset({10176, 10210}) | PASSING
"""A message of it got lost, too many batches are open, or an id is being stored now."""
_SERVER_FAULT = 500
_ID, _PLACE, _COMMIT = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"
_OVER = "Nats-Expected-Last-Subject-Sequence"
_RUN = "Eventbus-Run"
_NEVER = {_OVER: str(2**53 - 1)}
"""What refuses a batch: no subject has so much."""


@dataclass(slots=True)
class _Commit:
    """What is known of one batch while it is tried."""

    mark: Mark
    messages: list[Message]
    known: dict[str, Receipt] = field(default_factory=dict[str, Receipt])
    """Of those that were stored before, by their ids."""
    tries: int = 0
    unanswered: int = 0
    problem: str = ""

    @property
    def left(self) -> list[Message]:
        """What has to be stored beside the mark."""
        return [one for one in self.messages if (one.id or "") not in self.known]

    def receipts(self, stream: str, first: int) -> list[Receipt]:
        """Return the receipts, by the place of the mark: the rest lies behind it."""
        places = {id(one): first + place for place, one in enumerate(self.left, 1)}
        return [
            self.known.get(one.id or "")
            or Receipt(_event_id(one), stream, places[id(one)], driver=DRIVER)
            for one in self.messages
        ]


class Batches:
    """Commits batches to one stream over whatever link there is, and reads its marks."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        admin: Admin,
        settings: Settings,
        stream: str,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._admin = admin
        self._stream = stream
        self._patience = settings.emit_timeout
        self._per_try = settings.publish_timeout
        self._places = asyncio.Semaphore(AT_ONCE)

    async def marked(self, subject: str) -> Mark | None:
        """Return the last mark on a subject, as the stream's leader knows it.

        Raises:
            DriverError, TopologyError: It can't be asked.
        """
        stored = await self._admin.last(self._stream, subject)
        if stored is None:
            return None
        run = h.lowered(stored.message.headers).get(_RUN.lower(), "")
        return Mark(subject, run, stored.sequence)

    async def commit(self, mark: Mark, messages: Sequence[Message]) -> Sequence[Receipt]:
        """Store a mark and messages, or nothing; see `eventbus.drivers.atomic.Atomic`."""
        for message in messages:
            self._publisher.check(message)
        commit = _Commit(mark, [*messages])
        deadline = asyncio.get_running_loop().time() + self._patience
        async with self._places:
            while True:
                receipts = await self._try(commit, deadline)
                if receipts is not None:
                    return receipts

    async def _try(self, commit: _Commit, deadline: float) -> Sequence[Receipt] | None:
        """Return the receipts, None to try again."""
        loop = asyncio.get_running_loop()
        if commit.tries > commit.unanswered:  # a try without an answer has waited already
            await asyncio.sleep(max(0, min(pause_after(commit.tries), deadline - loop.time())))
        link = await self._connection.link_by(deadline)
        if link is None or loop.time() >= deadline:
            raise self._given_up(commit)
        commit.tries += 1
        try:
            raw = await self._sent(link, commit, min(self._per_try, deadline - loop.time()))
        except (TimeoutError, NotConnectedError) as exc:
            # What was begun may be stored, but for where nothing was written.
            commit.unanswered += not isinstance(exc, NotConnectedError) or isinstance(
                exc, LostError
            )
            commit.problem = str(exc) or "no answer"
            return None
        if is_no_responders(raw):
            commit.problem = f"no stream takes '{commit.mark.subject}'"
            return None
        try:
            return await self._considered(commit, _parsed(raw), link)
        except (TimeoutError, NotConnectedError) as exc:  # whom it met can't be asked now
            commit.problem = str(exc) or "no answer"
            return None

    async def _sent(self, link: Link, commit: _Commit, within: float) -> Raw:
        """Send the batch, and return the answer that says most of it."""
        mark = commit.mark
        own = {_OVER: str(mark.sequence), _RUN: mark.run}
        if not commit.left:
            return await link.ask(mark.subject, b"", own, within=within)
        return await _together(link, [Message(mark.subject, own, b""), *commit.left], within)

    async def _considered(
        self, commit: _Commit, answer: Table, link: Link
    ) -> Sequence[Receipt] | None:
        """Return the receipts, None to try again."""
        error = table(answer.get("error"))
        stream = text(answer.get("stream")) or self._stream
        if not error and number(answer.get("seq")):
            return commit.receipts(stream, number(answer.get("seq")) - len(commit.left))
        code, problem = number(error.get("err_code")), text(error.get("description"))
        commit.problem = f"{problem} ({code})"
        if code in (CONFLICT, KNOWN_ID):
            return await self._met(commit, code, link)
        self._check_denied(commit, link)
        if code in NO_ROOM:
            raise self._certain(commit, BackpressureError(stream=stream, problem=problem))
        if code in BUSY or number(error.get("code")) >= _SERVER_FAULT:
            return None
        remedy = "; let a service with EVENTBUS_PROVISION=auto start, which switches batches on"
        advice = remedy if code == DISABLED else ""
        refused = f"{_told(commit)} isn't stored: {problem} (error {code} of {stream}){advice}"
        raise self._certain(commit, PublishError(refused))

    async def _met(self, commit: _Commit, code: int, link: Link) -> Sequence[Receipt] | None:
        """Find out what a batch met: itself, another run's, or some of its messages."""
        found = await self.marked(commit.mark.subject)
        if found is not None and found.run == commit.mark.run:
            return commit.receipts(self._stream, found.sequence)
        now = 0 if found is None else found.sequence
        if now > commit.mark.sequence:
            raise SequenceConflictError(name=_told(commit), subject=commit.mark.subject)
        commit.mark = replace(commit.mark, sequence=now)
        if code == KNOWN_ID:
            for one in commit.left:
                await self._look_for(one, commit, link)
        return None

    async def _look_for(self, message: Message, commit: _Commit, link: Link) -> None:
        """Take note of a message that is stored already under its id.

        Raises:
            IdConflictError: Another one is.
        """
        if message.id is None:
            return
        # Refused as a whole, so nothing is stored; its first message is looked at first. (A single
        # publish that is refused for what it expects would stop a stream with replicas.)
        refused = Message(commit.mark.subject, _NEVER, b"")
        raw = await _together(link, [replace(message, headers={}), refused], self._per_try)
        if number(table(_parsed(raw).get("error")).get("err_code")) != KNOWN_ID:
            return
        raw = await link.ask(
            message.subject, message.body, message.headers, message.id, within=self._per_try
        )
        answer = _parsed(raw)
        place = text(answer.get("stream")), number(answer.get("seq"))
        if not place[1]:
            return
        known = answer.get("duplicate") is True
        receipt = Receipt(_event_id(message), *place, duplicate=known, driver=DRIVER)
        check_same(message, await self._admin.message(*place), receipt)
        commit.known[message.id] = receipt

    def _check_denied(self, commit: _Commit, link: Link) -> None:
        for one in commit.left:
            if link.is_denied(one.subject):
                raise NotAuthorizedError(
                    f"{link.server.url} doesn't let us publish to '{one.subject}'; permit it for "
                    "this user"
                )

    def _given_up(self, commit: _Commit) -> DriverError:
        problem = commit.problem or self._connection.problem or "no connection"
        if commit.unanswered:
            return _unknown(commit)
        if not commit.tries:
            return NotConnectedError(f"{_told(commit)} wasn't sent: {problem}")
        kind = NoStreamError if problem.startswith("no stream") else PublishError
        return kind(f"{_told(commit)} isn't stored: {problem} ({commit.tries} tries)")

    def _certain(self, commit: _Commit, refused: PublishError) -> DriverError:
        """Return a refusal, unless an earlier try may have been stored or may still be."""
        return _unknown(commit) if commit.unanswered else refused


async def _together(link: Link, messages: Sequence[Message], within: float) -> Raw:
    """Send two messages or more as one batch, and return the answer that says most of it."""
    batch = uuid4().hex
    waiting: list[asyncio.Future[Raw]] = []
    for place, one in enumerate(messages, 1):
        headers = {**one.headers, _ID: batch, _PLACE: str(place)}
        if place == len(messages):
            headers[_COMMIT] = "1"
        if place in (1, len(messages)):
            waiting.append(link.ask(one.subject, one.body, headers, one.id, within=within))
        else:
            link.send(one.subject, one.body, "", headers, one.id)
    return _of_both(*await asyncio.gather(*waiting, return_exceptions=True))


def _of_both(began: Raw | BaseException, ended: Raw | BaseException) -> Raw:
    """Return the answer that says most of a batch: that to its end, unless it never began."""
    if isinstance(began, NotAuthorizedError):
        raise began
    if isinstance(ended, BaseException):
        raise ended
    if isinstance(began, BaseException):
        return ended
    return began if began.data or is_no_responders(began) else ended


def _unknown(commit: _Commit) -> DriverError:
    return DriverError(
        f"{_told(commit)} may or may not be stored: no answer ({commit.problem}); its mark says "
        "which when the event comes again"
    )


def _told(commit: _Commit) -> str:
    return f"the batch of {len(commit.messages)} events for '{commit.mark.subject}'"


def _event_id(message: Message) -> str:
    id = message.id or message.headers.get(h.ID, "")
    return h.unquoted(id) if "%" in id else id


def _parsed(raw: Raw) -> Table:
    try:
        return table(json.loads(raw.data or b"{}"))
    except ValueError:
        return {}
