"""What may go on the wire: refuses what NATS would change, store literally, or end a connection for."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from eventbus.errors import HeaderError, SubjectError
from eventbus.headers import Headers

__all__ = ("MESSAGE_ID", "check_headers", "check_subject")

MESSAGE_ID: Final = "Nats-Msg-Id"
"""What the server deduplicates by."""

LONGEST_SUBJECT: Final = 1024
"""Far below the server's control line of 4096, over which it ends the connection."""

_SUBJECT: Final = re.compile(r"[!-)+\-/-=?-~]+(\.[!-)+\-/-=?-~]+)*")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_LINES: Final = len(b"NATS/1.0\r\n") + len(b"\r\n")
_PER_HEADER: Final = len(b": ") + len(b"\r\n")
_ID_LINE: Final = len(MESSAGE_ID) + _PER_HEADER


@lru_cache(maxsize=4096)
def check_subject(subject: str) -> None:
    """Refuse what NATS would store literally, answer with a closed connection, or not at all."""
    if len(subject) > LONGEST_SUBJECT:
        problem = f"is {len(subject)} characters long, {LONGEST_SUBJECT} are allowed"
        raise SubjectError(value=f"{subject[:40]}...", problem=problem)
    if not _SUBJECT.fullmatch(subject):
        problem = "can't be published to: use tokens of printable ASCII, without '*' and '>'"
        raise SubjectError(value=subject, problem=problem)


def check_headers(headers: Mapping[str, str], id: str | None = None) -> int:
    """Return how many bytes headers take on the wire, with that of a message's id.

    Raises:
        HeaderError: A name or value that would arrive changed, or not at all.
    """
    if type(headers) is Headers and (id is None or headers.id == id):
        size = _HEADER_LINES + len(headers.written)
        return size if id is None else size + _ID_LINE + len(id)
    if id is not None:
        headers = {**headers, MESSAGE_ID: id}
    values = "".join(headers.values())
    names = _size_of_names(tuple(headers))
    if names is None or not (values.isascii() and values.isprintable()):
        raise _header_error(headers)
    return names + len(values)


@lru_cache(maxsize=1024)
def _size_of_names(names: tuple[str, ...]) -> int | None:
    """Return the bytes of all but the values; None where a name isn't one. Few sets recur."""
    if not all(_HEADER_NAME.fullmatch(name) for name in names):
        return None
    return _HEADER_LINES + sum(map(len, names)) + _PER_HEADER * len(names)


def _header_error(headers: Mapping[str, str]) -> HeaderError:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            return HeaderError(header=name, problem="isn't a header name")
        if not (value.isascii() and value.isprintable()):
            problem = "has a value that isn't printable ASCII; percent-encode it"
            return HeaderError(header=name, problem=problem)
    raise AssertionError("called for headers that are in order")
