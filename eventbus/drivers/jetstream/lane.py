"""`Lane`: messages on the socket of a connection, past nats-py's tasks, queues and parser.

nats-py connects, logs in, encrypts, pings and reads what the server says of the connection; the
lane stands between its socket and its reader and takes out the messages of its own subscriptions,
which have ids that nats-py never uses. All else goes on to nats-py untouched. It needs no private
attribute: `eventbus.drivers.jetstream.wire` finds the socket, and does without a lane where it
can't.
"""

import asyncio
import re
from collections.abc import Callable
from itertools import count
from typing import Final, TypeAlias

from eventbus.drivers.jetstream.frame import STORED, Frame, Stored

__all__ = ("Lane", "Take")

Take: TypeAlias = Callable[[Frame], None]
Answered: TypeAlias = Callable[[bytes, Frame], None]
"""Takes the token of an answer that has no headers, and the answer."""

_Match: TypeAlias = Callable[[bytes, int], re.Match[bytes] | None]

CHUNK: Final = 64 * 1024
"""Bytes that leave before the turn of the loop ends: the server takes them while more is written."""

_MSG: Final = 77
_HMSG: Final = 72
"""M and H, which `MSG` and `HMSG` begin with."""
_END: Final = b"\r\n"


class Lane:
    """Writes and reads on one TCP connection; attached, it is the connection's protocol."""

    def __init__(self, transport: asyncio.Transport, below: asyncio.Protocol, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._below = below
        self._takers: dict[bytes, Take] = {}
        self._ids = count(1)
        self._answers: tuple[_Match, Answered] = _none, _nobody
        self._written: list[bytes] = []
        self._size = 0
        self._chunk = min(most, CHUNK)
        self.is_full = False
        """Whether more than ``most`` bytes are written that the socket hasn't taken."""
        self.heard = 0
        """How often something came in."""
        self._rest: list[bytes] = []
        self._missing = 0
        transport.set_write_buffer_limits(high=most)
        transport.set_protocol(self)  # type: ignore[arg-type]

    # Writing.

    def write(self, command: bytes) -> None:
        """Write a whole command; those of one turn of the loop leave in their order, together or in `CHUNK`s."""
        if not self._written:
            self._loop.call_soon(self.flush)
        self._written.append(command)
        self._size += len(command)
        if self._size > self._chunk:
            self.flush()

    def flush(self) -> None:
        """Hand what was written to the socket now, so that what nats-py writes comes after."""
        if self._written:
            written, self._written, self._size = self._written, [], 0
            self._transport.write(written[0] if len(written) == 1 else b"".join(written))

    def subscribe(self, subject: str, take: Take, queue: str = "") -> bytes:
        """Hand every message on a subject to ``take``, which must not raise; return its id."""
        sid = b"e%d" % next(self._ids)
        self._takers[sid] = take
        group = f"{queue} " if queue else ""
        self.write(b"SUB %b %b%b\r\n" % (subject.encode(), group.encode(), sid))
        return sid

    def unsubscribe(self, sid: bytes) -> None:
        """Ask the server to send no more; what is under way is still handed over until `forget`."""
        self.write(b"UNSUB %b\r\n" % sid)

    def forget(self, sid: bytes) -> None:
        """Drop what still comes."""
        self._takers.pop(sid, None)

    def expect(self, prefix: str, sid: bytes, answered: Answered) -> None:
        """Hand answers without headers, whose subject is ``prefix`` and a number, to ``answered``.

        The others on that subscription still go to its taker.
        """
        pattern = rb"MSG %b(\d+) %b (\d+)\r\n(%b(?=\r\n))?" % (
            re.escape(prefix.encode()),
            sid,
            STORED,
        )
        self._answers = re.compile(pattern).match, answered

    # Reading.

    def data_received(self, data: bytes) -> None:
        """Take the messages out and pass the rest on."""
        self.heard += 1
        if self._rest:
            self._rest.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._rest)
            self._rest.clear()
        done = self._read(data)
        if done < len(data):
            self._rest.append(data[done:])

    def _read(self, data: bytes) -> int:
        """Read the whole frames and return where the first incomplete one begins."""
        place, size = 0, len(data)
        self._missing = 0
        answer, answered = self._answers
        while place < size:
            kind = data[place]
            if kind == _MSG and (found := answer(data, place)) is not None:
                token, length, body, stream, sequence = found.groups()
                begin = found.end(2) + 2
                end = begin + int(length)
                if end + 2 > size:
                    self._missing = end + 2 - size
                    break
                if body is not None and end == found.end():
                    answered(token, Stored(token, body, stream, sequence))
                else:
                    answered(token, Frame(token, b"", b"", data[begin:end]))
                place = end + 2
                continue
            line = data.find(_END, place)
            if line < 0:
                break
            end = self._take(data, kind, place, line)
            if end > size:
                self._missing = end - size
                break
            place = end
        return place

    def _take(self, data: bytes, kind: int, place: int, line: int) -> int:
        """Hand on the frame whose first line ends at ``line``, if it is whole; return its end."""
        if kind not in (_MSG, _HMSG):
            self._below.data_received(data[place : line + 2])
            return line + 2
        words = data[place:line].split(b" ")
        end = line + 2 + int(words[-1])
        if end + 2 <= len(data):
            taker = self._takers.get(words[2])
            if taker is not None:
                taker(_frame(words, data, line + 2, end, kind == _HMSG))
            elif not words[2].startswith(b"e"):
                self._below.data_received(data[place : end + 2])
        return end + 2

    # The rest of a protocol is nats-py's.

    def eof_received(self) -> bool | None:
        """Tell nats-py, which then closes the connection and says so."""
        return self._below.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell nats-py."""
        self._written.clear()
        self._below.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell nats-py's writer that the socket is full."""
        self.is_full = True
        self._below.pause_writing()

    def resume_writing(self) -> None:
        """Tell nats-py's writer that there is room again."""
        self.is_full = False
        self._below.resume_writing()


def _none(_: bytes, __: int) -> None:
    """Find no answers, as long as nobody expects any."""


def _nobody(_: bytes, __: Frame) -> None:
    """Stand in until somebody expects answers."""


def _frame(words: list[bytes], data: bytes, begin: int, end: int, has_head: bool) -> Frame:
    """Return a message: ``MSG subject id [reply] size``, ``HMSG subject id [reply] head size``."""
    if not has_head:
        return Frame(words[1], words[3] if len(words) == 5 else b"", b"", data[begin:end])
    body = begin + int(words[-2])
    reply = words[3] if len(words) == 6 else b""
    return Frame(words[1], reply, data[begin:body], data[body:end])
