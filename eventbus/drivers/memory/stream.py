"""`Stream`: messages under rising sequences, with a size limit, an age limit and known ids."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from eventbus import headers as h
from eventbus.clock import Clock
from eventbus.drivers.receipt import Receipt
from eventbus.envelope import Message
from eventbus.errors import BackpressureError

__all__ = ("DRIVER", "Stored", "Stream", "header_bytes", "put_in", "size_of")

DRIVER = "memory"
MESSAGE_ID = "nats-msg-id"
OVERHEAD = 34
"""Bytes that a message takes beside its subject, headers and body, as on the real server."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in its place."""

    message: Message
    sequence: int
    at: datetime
    size: int
    kept: bool = False
    """Its age doesn't matter."""


class Stream:
    """A stream that refuses what doesn't fit (``discard: new``)."""

    def __init__(
        self, name: str, clock: Clock, *, max_bytes: int | None, max_age: float, window: float
    ) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self.bytes = 0
        self.last = 0
        """The newest sequence ever given."""
        self._clock = clock
        self._max_age = timedelta(seconds=max_age) if max_age else None
        self._window = timedelta(seconds=window)
        self._stored: OrderedDict[int, Stored] = OrderedDict()
        self._ids: OrderedDict[str, tuple[int, datetime]] = OrderedDict()
        self._last_on: dict[str, int] = {}
        """The newest sequence of each subject that holds something."""

    def put(self, message: Message, *, keep: bool = False) -> tuple[int, bool]:
        """Store a message; return its sequence, and whether it was stored before under its id.

        With ``keep`` it has no age.

        Raises:
            BackpressureError: It doesn't fit.
        """
        now = self._clock.now()
        self._forget(now)
        if message.id is not None and message.id in self._ids:
            return self._ids[message.id][0], True
        size = size_of(message)
        if self.max_bytes is not None and self.bytes + size > self.max_bytes:
            raise BackpressureError(stream=self.name, problem="maximum bytes exceeded")
        self.last += 1
        self._stored[self.last] = Stored(message, self.last, now, size, keep)
        self._last_on[message.subject] = self.last
        self.bytes += size
        if message.id is not None:
            self._ids[message.id] = (self.last, now)
        return self.last, False

    def known(self, id: str | None) -> int | None:
        """Return where a message is stored, or was, under an id; None where the id isn't known."""
        self._forget(self._clock.now())
        return self._ids[id][0] if id is not None and id in self._ids else None

    def last_on(self, subject: str) -> Stored | None:
        """Return the newest message on a subject; None where there is none."""
        self._forget(self._clock.now())
        return self._stored.get(self._last_on.get(subject, 0))

    def check_room(self, messages: Sequence[Message]) -> None:
        """Refuse messages that don't fit all together.

        Raises:
            BackpressureError: They don't.
        """
        self._forget(self._clock.now())
        size = sum(map(size_of, messages))
        if self.max_bytes is not None and self.bytes + size > self.max_bytes:
            raise BackpressureError(stream=self.name, problem="maximum bytes exceeded")

    def skip(self) -> int:
        """Return the sequence of something that isn't kept here."""
        self.last += 1
        return self.last

    def get(self, sequence: int) -> Stored | None:
        """Return what is stored there; None where it is gone or never was."""
        self._forget(self._clock.now())
        return self._stored.get(sequence)

    def all(self) -> tuple[Stored, ...]:
        """Return all that is stored, in order."""
        self._forget(self._clock.now())
        return tuple(self._stored.values())

    def remove(self, sequence: int) -> None:
        """Remove what is stored there; its id stays known."""
        gone = self._stored.pop(sequence, None)
        if gone is None:
            return
        self.bytes -= gone.size
        if self._last_on.get(gone.message.subject) == sequence:
            del self._last_on[gone.message.subject]

    def _forget(self, now: datetime) -> None:
        """Remove what is too old, and the ids that are out of the window."""
        while self._ids:
            id, (_, stored) = next(iter(self._ids.items()))
            if now - stored < self._window:
                break
            del self._ids[id]
        if self._max_age is None:
            return
        gone: list[int] = []
        for oldest in self._stored.values():
            if now - oldest.at < self._max_age:
                break
            if not oldest.kept:
                gone.append(oldest.sequence)
        for sequence in gone:
            self.remove(sequence)


def put_in(stream: Stream, message: Message, *, keep: bool = False) -> Receipt:
    """Store a message, and return what an emitter gets; raises as `Stream.put` does."""
    headers = h.lowered(message.headers)
    if message.id is not None:
        headers = {**headers, MESSAGE_ID: message.id}
    sequence, duplicate = stream.put(replace(message, headers=headers), keep=keep)
    id = message.id or headers.get(h.ID, "")
    return Receipt(id, stream.name, sequence, duplicate, DRIVER)


def size_of(message: Message) -> int:
    """Return the bytes that a message takes."""
    return OVERHEAD + len(message.subject) + len(message.body) + header_bytes(message.headers)


def header_bytes(headers: Mapping[str, str]) -> int:
    """Return the bytes that headers take."""
    return sum(len(name) + len(value) + 4 for name, value in headers.items())
