"""`Frame`: a message as it came, read when somebody asks; and headers, read and written."""

import re
from collections.abc import Mapping
from typing import Final

from eventbus.delivery import Arrived
from eventbus.drivers.jetstream.checks import MESSAGE_ID
from eventbus.drivers.jetstream.peer import Raw
from eventbus.headers import (
    CAUSATION_ID,
    CORRELATION_ID,
    EXPIRES,
    ID,
    KEY,
    TIME,
    TRACE,
    Headers,
    Lowered,
    lines,
)

__all__ = ("STORED", "Frame", "Stored", "publish_command", "read_head", "reply_of", "stored_in")

_VERSION: Final = "NATS/1.0"
_CONSTANTS_KEPT: Final = 1024
_FIRST_OWN: Final = b"\r\nce-id:"
_BLANK: Final = " \t\n\r\x0b\x0c"
"""What bytes.strip takes; str.strip takes more."""

_KNOWN: Final = {
    one: one.lower()
    for one in (ID, TIME, CORRELATION_ID, CAUSATION_ID, KEY, EXPIRES, MESSAGE_ID, *TRACE)
}
"""Headers that most events bring, and their names in lower case."""
_SPACE: Final = re.compile(r"\s")

_constants: Final[dict[bytes, dict[str, str]]] = {}


class Frame(Arrived):
    """One message of the server, or one of its statuses."""

    __slots__ = ("reply_bytes",)

    def __init__(self, subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
        super().__init__(subject, head, data)
        self.reply_bytes = reply

    @property
    def subject(self) -> str:
        """What it was published to; for a status, the inbox it answers to."""
        return self.subject_bytes.decode(errors="replace")

    @property
    def reply(self) -> str:
        """Where to answer; JetStream's ack subject. Empty for a status."""
        return self.reply_bytes.decode(errors="replace")

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The headers as they were written, and ``Status`` and ``Description`` for a status."""
        return _read(self.head) or None if self.head else None

    def lowered(self) -> Lowered:
        """Return the headers by lower-case name, of a message that isn't a status."""
        return read_head(self.head)


class Stored(Frame):
    """The answer that a message is stored, where it says no more than that."""

    __slots__ = ("sequence", "stream")

    def __init__(self, subject: bytes, data: bytes, stream: bytes, sequence: bytes) -> None:
        super().__init__(subject, b"", b"", data)
        self.stream = stream
        """The name of the stream."""
        self.sequence = sequence
        """The number of the message in it, in digits."""


STORED: Final = rb'\{"stream":"([A-Za-z0-9_-]+)", ?"seq":(\d{1,20})\}'
"""The pattern of such an answer."""
_stored: Final = re.compile(STORED).fullmatch


def stored_in(data: bytes) -> Stored | None:
    """Return an answer as `Stored`; None where it is another one."""
    found = _stored(data)
    return None if found is None else Stored(b"", data, found[1], found[2])


def reply_of(raw: Raw) -> str:
    """Return where to answer; of a frame without looking its property up by name."""
    if not isinstance(raw, Frame):
        return raw.reply
    try:
        return raw.reply_bytes.decode("ascii")
    except UnicodeDecodeError:
        return raw.reply


def read_head(head: bytes) -> Lowered:
    """Return the headers in a block, by lower-case name.

    What comes before an event's id is the same in all events of a class from one service, so it
    is read once.
    """
    cut = head.find(_FIRST_OWN)
    if cut < 0 or not head.isascii():
        return Lowered({name.lower(): value for name, value in _read(head).items()})
    before = head[:cut]
    constant = _constants.get(before)
    if constant is None:
        if len(_constants) >= _CONSTANTS_KEPT:  # anybody can publish anything
            _constants.clear()
        constant = {name.lower(): value for name, value in _read(before).items()}
        _constants[before] = constant
    found = Lowered(constant)
    for line in head[cut + 2 :].decode("ascii").split("\r\n"):
        name, colon, value = line.partition(":")
        known = _KNOWN.get(name)
        if known is not None:
            found[known] = value.strip(_BLANK)
        elif colon and _is_name(name := name.strip(_BLANK)):
            found[name.lower()] = value.strip(_BLANK)
    return found


def _is_name(name: str) -> bool:
    return _SPACE.search(name) is None


def _read(head: bytes) -> dict[str, str]:
    """Return the headers in a block as nats-py does; a line that isn't one is left out."""
    first, *lines = head.split(b"\r\n")
    found = _status(first[len(_VERSION) :].decode(errors="replace"))
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and name.isascii() and _is_name(key := name.strip().decode()):
            found[key] = value.strip().decode(errors="replace")
    return found


def _status(text: str) -> dict[str, str]:
    """Return what the first line says after the version: ``503``, ``404 No Messages``."""
    code, _, description = text.strip().partition(" ")
    if not code.isdecimal():
        return {}
    return {"Status": code, **({"Description": description} if description else {})}


def publish_command(
    subject: str,
    reply: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    id: str | None = None,
) -> bytes:
    """Return the command that publishes a message; what is in it is checked before.

    ``id`` is what the server deduplicates by.
    """
    if type(headers) is Headers:
        written = headers.written
    elif headers or id is not None:
        written = lines(headers or {})
    else:
        return f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n"
    known = "" if id is None else f"{MESSAGE_ID}: {id}\r\n"
    size = len(written) + len(known) + 12  # of "NATS/1.0", and the two ends of lines not in them
    whole = size + len(body)
    start = f"HPUB {subject} {reply} {size} {whole}\r\n{_VERSION}\r\n{written}{known}\r\n"
    return b"".join((start.encode(), body, b"\r\n"))
