"""The wire names of every header, and how values are written and read.

CloudEvents 1.0 binary mode plus W3C trace context plus our own; docs/guide/wire.md lists them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote, unquote

from eventbus.errors import HeaderError

__all__ = (
    "ATTEMPT",
    "BEGAN",
    "CANCELLED",
    "CAUSATION_ID",
    "CONTENT_TYPE",
    "CORRELATION_ALIASES",
    "CORRELATION_ID",
    "DATA_SCHEMA",
    "DEAD",
    "DELETED",
    "DUE",
    "EXPIRES",
    "FIXED",
    "ID",
    "JSON",
    "KEY",
    "KIND",
    "RAISED",
    "REDRIVE",
    "SOURCE",
    "SPEC_VERSION",
    "TAGS",
    "TICK",
    "TIME",
    "TRACE",
    "TYPE",
    "UNPARK",
    "Headers",
    "Lowered",
    "Shared",
    "as_dict",
    "check_user_headers",
    "forwarded",
    "is_plain",
    "is_text",
    "lines",
    "lowered",
    "ordering_key",
    "parse_time",
    "quoted",
    "render_time",
    "tags_in",
    "unquoted",
)

SPEC_VERSION: Final = "ce-specversion"
ID: Final = "ce-id"
SOURCE: Final = "ce-source"
TYPE: Final = "ce-type"
TIME: Final = "ce-time"
DATA_SCHEMA: Final = "ce-dataschema"
KEY: Final = "ce-partitionkey"
CORRELATION_ID: Final = "ce-correlationid"
CAUSATION_ID: Final = "ce-causationid"
KIND: Final = "ce-kind"
TAGS: Final = "ce-tags"
CONTENT_TYPE: Final = "content-type"
EXPIRES: Final = "Eventbus-Expires"
DUE: Final = "Eventbus-Due"
"""When a delayed event is handed to its listeners."""
CANCELLED: Final = "Eventbus-Cancelled"
"""On the mark of a delayed event that was cancelled: when it would have fired."""
TICK: Final = "Eventbus-Tick"
"""The rule of a recurring event, as `eventbus.scheduler` declares it."""
ATTEMPT: Final = "Eventbus-Attempt"
BEGAN: Final = "Eventbus-Began"
"""When the first attempt of a parked retry began."""
RAISED: Final = "Eventbus-Raised"
"""How many attempts of a parked retry ended with an exception."""
REDRIVE: Final = "Eventbus-Redrive"
"""How often an event was redriven, on what comes back to its listener."""
UNPARK: Final = "Eventbus-Unpark"
"""On what is redriven of a parked key: which parking it ends, see `eventbus.parked`."""
FIXED: Final = "Eventbus-Fixed"
"""On a delayed event whose class says ``can_unqueue=False``."""
DELETED: Final = "Eventbus-Deleted"
"""On a state event without a body: the state of its key is deleted."""
DEAD: Final = "Eventbus-Dead-"
"""What the names of the headers of a dead letter begin with."""

JSON: Final = "application/json"
TRACE: Final = ("traceparent", "tracestate", "baggage")
"""W3C headers, carried as they are."""
CORRELATION_ALIASES: Final = ("x-correlation-id", "correlation_id")
"""What other systems call the correlation id; accepted when reading."""

_RESERVED: Final = ("nats-", "ce-", "eventbus-")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]{1,128}")
_PLAIN: Final = "!#$&'()*+,/:;<=>?@[\\]^`{|}~"
_fits: Final = re.compile(r"[!#-$&-~]*").fullmatch
_THREE: Final = tuple(f"{number:03}" for number in range(1000))
"""Three digits each: formatting a number takes longer."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_rendered = _EPOCH, _EPOCH, "1970-01-01T00:00:00."
"""The last second that was rendered: its first and its last microsecond, and its text."""


class Headers(Mapping[str, str]):
    """The headers of an event, written: what all events of a class share, and its own.

    Frozen. The names are tokens, the values plain: whoever makes them has seen to that.
    """

    __slots__ = ("_all", "_shared", "id", "written")

    def __init__(self, shared: "Shared", id: str, own: str) -> None:
        self._shared = shared
        self._all: dict[str, str] | None = None
        self.id = id
        """The event's id, as it is written in them."""
        self.written = shared.written + own
        """A line for each header."""

    def merged(self) -> dict[str, str]:
        """Return all of them, in the order they are written; nobody changes them."""
        if self._all is None:
            lines = self.written.split("\r\n")
            self._all = {name: value for name, _, value in (one.partition(": ") for one in lines)}
            del self._all[""]  # after the end of the last line
        return self._all

    def __getitem__(self, name: str) -> str:
        """Return a value."""
        value = self._shared.headers.get(name)
        return self.merged()[name] if value is None else value

    def shared(self, name: str) -> str | None:
        """Return a value that all events of the class have."""
        return self._shared.headers.get(name)

    def __iter__(self) -> Iterator[str]:
        """Return the names, in the order they are written."""
        return iter(self.merged())

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.merged())

    def __repr__(self) -> str:
        """Return them as a dict's."""
        return repr(self.merged())


class Shared:
    """Headers that many events have in common, written once; no event has one of them twice."""

    __slots__ = ("headers", "written")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self.written = lines(headers)


def lines(headers: Mapping[str, str]) -> str:
    """Return headers as they are written: a line for each."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def quoted(value: str) -> str:
    """Return a value safe for a header: printable ASCII stays, the rest is percent-encoded.

    The rule is that of CloudEvents' HTTP binding, 3.1.3.2: also space, ``"`` and ``%``. A lone
    surrogate, as file names and error messages may hold one, is written as its escape.
    """
    if _fits(value):
        return value
    return quote(value, safe=_PLAIN, errors="backslashreplace")


def unquoted(value: str) -> str:
    """Return the value that was written with `quoted`; others come back unchanged."""
    return unquote(value) if "%" in value else value


def is_plain(value: str) -> bool:
    """Tell whether it can be sent as it is: printable ASCII, spaces included."""
    return value.isascii() and value.isprintable()


def is_text(value: str) -> bool:
    """Tell whether UTF-8 can write it, so no lone surrogate is in it."""
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def as_dict(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as a dict, which nobody changes."""
    if isinstance(headers, Headers):
        return headers.merged()
    return headers if isinstance(headers, dict) else dict(headers)


class Lowered(dict[str, str]):
    """Headers by lower-case name; nobody changes them."""


def lowered(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers by lower-case name: names are case-insensitive when read."""
    if type(headers) is Lowered:
        return headers
    return Lowered({name.lower(): value for name, value in headers.items()})


def ordering_key(headers: Mapping[str, str]) -> str:
    """Return the ordering key in the headers of a message, empty where it has none."""
    return unquoted(headers.get(KEY, ""))


def tags_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the tags in the headers of a message."""
    return tuple(tag for tag in unquoted(headers.get(TAGS, "")).split(",") if tag)


def forwarded(headers: Mapping[str, str], *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the headers of a message that came in, so that they can be sent again.

    Without those of the server and those whose lower-case name begins with one of ``without``.
    What another system wrote as it likes, such as plain UTF-8, is written as we do.
    """
    left_out = ("nats-", *without)
    return {
        name: value if is_plain(value) else quoted(value)
        for name, value in headers.items()
        if _TOKEN.fullmatch(name) and not name.lower().startswith(left_out)
    }


def check_user_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a user's headers, by lower-case name.

    Raises:
        HeaderError: A name is reserved, twice there or no token, or a value isn't a string of
            Unicode.
    """
    checked: dict[str, str] = {}
    if not isinstance(headers, Mapping):
        kind = type(headers).__name__
        raise HeaderError(header=kind, problem="isn't a mapping; give names and their values")
    given: Iterable[tuple[object, object]] = headers.items()
    for name, value in given:
        lower = str(name).lower()
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise HeaderError(
                header=str(name), problem="isn't a header name: use letters, digits and '-'"
            )
        if lower.startswith(_RESERVED) or lower in TRACE or lower == CONTENT_TYPE:
            raise HeaderError(
                header=name, problem="is reserved for the bus; use a name of your own like 'x-...'"
            )
        if lower in checked:
            raise HeaderError(
                header=name, problem="is there twice; names are the same in any case of letters"
            )
        if not isinstance(value, str):
            raise HeaderError(
                header=name, problem=f"has a value of type {type(value).__name__}; use a string"
            )
        if not is_text(value):
            raise HeaderError(header=name, problem="has a value that isn't valid Unicode")
        checked[lower] = value
    return checked


def render_time(time: datetime) -> str:
    """Return a time as RFC 3339 in UTC, with microseconds."""
    global _rendered  # noqa: PLW0603 - most times are of the second of the one before
    if time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    first, last, text = _rendered
    if not first <= time <= last:
        first, last = time.replace(microsecond=0), time.replace(microsecond=999_999)
        text = f"{first.isoformat()[:19]}."
        _rendered = first, last, text
    micros = time.microsecond
    return f"{text}{_THREE[micros // 1000]}{_THREE[micros % 1000]}Z"


def parse_time(text: str) -> datetime | None:
    """Return an RFC 3339 time in UTC, None where it isn't one."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is UTC:
            return time
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the second: out of range once it is in UTC
        return None
