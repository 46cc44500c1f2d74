"""Envelope to message and back; the only place that writes and reads events on the wire."""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Final

from pydantic import JsonValue, TypeAdapter, ValidationError

from eventbus import headers as h
from eventbus.correlation import NO_TRACE
from eventbus.envelope import NO_HEADERS, Envelope, Message
from eventbus.errors import DecodeError, InvalidEventError, UpcastError
from eventbus.event import Event, UnknownEvent
from eventbus.ids import is_id
from eventbus.kinds import StateDeleted
from eventbus.registry import Reading, Registry
from eventbus.upcast import Payload, Upcast

__all__ = ("decode", "encode", "invalid", "validate", "version_of")

_JSON: Final[TypeAdapter[JsonValue]] = TypeAdapter(JsonValue)
_PAYLOAD: Final[TypeAdapter[Payload]] = TypeAdapter(Payload)
MAX_PROBLEMS: Final = 20
"""How many problems an error lists; a body from outside may have any number."""
MAX_PATH: Final = 200
"""Longest path of a field that an error names; the keys in it come from outside too."""
_EXPIRES: Final = h.EXPIRES.lower()
_DUE: Final = h.DUE.lower()
_DELETED: Final = h.DELETED.lower()
_USUAL: Final = frozenset(
    {
        h.SPEC_VERSION,
        h.ID,
        h.SOURCE,
        h.TYPE,
        h.TIME,
        h.DATA_SCHEMA,
        h.KEY,
        h.CORRELATION_ID,
        h.CAUSATION_ID,
        h.KIND,
        h.TAGS,
        h.CONTENT_TYPE,
        "nats-msg-id",
        *h.TRACE,
    }
)
"""Headers of the bus that most events have; none of them is a user's."""
_SCHEMA_VERSION: Final = re.compile(r"/v(\d{1,9})$")


def encode(envelope: Envelope, subject: str) -> Message:
    """Return the message of an envelope: CloudEvents headers, and the payload as it is."""
    shared = _shared(
        envelope.name, envelope.version, envelope.source, envelope.kind, envelope.tags
    )
    id, caused, key = h.quoted(envelope.id), envelope.correlation_id, envelope.key
    own = (
        f"{h.ID}: {id}\r\n{h.TIME}: {h.render_time(envelope.time)}\r\n"
        f"{h.CORRELATION_ID}: {id if caused == envelope.id else h.quoted(caused)}\r\n"
    )
    if envelope.causation_id is not None:
        own += f"{h.CAUSATION_ID}: {h.quoted(envelope.causation_id)}\r\n"
    if key is not None:
        own += f"{h.KEY}: {h.quoted(key)}\r\n"
    # Most events have no more than that.
    if envelope.headers or envelope.expires or envelope.due or not envelope.body:
        own += h.lines(_seldom(envelope))
    elif envelope.trace:
        for name, value in envelope.trace.items():
            if h.is_plain(value):  # as it came from a request, or another system
                own += f"{name}: {value}\r\n"
    return Message(subject, h.Headers(shared, id, own), envelope.body, id)


def _seldom(envelope: Envelope) -> dict[str, str]:
    headers: dict[str, str] = {}
    if envelope.kind == "state" and isinstance(envelope.event, StateDeleted):
        headers[h.DELETED] = "true"
    if envelope.expires is not None:
        headers[h.EXPIRES] = h.render_time(envelope.expires)
    if envelope.due is not None:
        headers |= _waiting(envelope, envelope.due)
    headers |= _carried(envelope.trace)
    for name, value in envelope.headers.items():
        headers[name] = h.quoted(value)
    return headers


def _carried(trace: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a trace that can be sent."""
    return {name: value for name, value in trace.items() if h.is_plain(value)}


def _waiting(envelope: Envelope, due: datetime) -> dict[str, str]:
    """Return the headers of an event that waits for its time."""
    spec = envelope.event.event_spec
    fixed = spec is not None and not spec.can_unqueue
    ticks = {h.TICK: h.quoted(envelope.tick)} if envelope.tick else {}
    return {h.DUE: h.render_time(due), **({h.FIXED: "true"} if fixed else {}), **ticks}


@lru_cache(maxsize=1024)
def _shared(name: str, version: int, source: str, kind: str, tags: tuple[str, ...]) -> h.Shared:
    """Return the headers that are the same in all events of a class from one service."""
    headers = {
        h.SPEC_VERSION: "1.0",
        h.SOURCE: h.quoted(source),
        h.TYPE: name,
        h.DATA_SCHEMA: f"{name}/v{version}",
        h.CONTENT_TYPE: h.JSON,
        h.KIND: h.quoted(kind),
    }
    if tags:
        headers[h.TAGS] = h.quoted(",".join(tags))
    return h.Shared(headers)


def validate(event: type[Event], data: Mapping[str, object]) -> Event:
    """Return the event that a mapping describes; strict: an unknown field is an error.

    Raises:
        InvalidEventError: A field is missing, unknown or of the wrong type; all are listed.
    """
    name = event.event_spec.name if event.event_spec else event.__name__
    if not isinstance(data, Mapping):
        problem = f"must be a mapping of its fields, not {type(data).__name__}"
        raise InvalidEventError(name=name, problems=[("", problem)])
    try:
        return event.model_validate(dict(data))
    except ValidationError as exc:
        raise invalid(name, exc) from exc


def decode(
    message: Message,
    name: str,
    registry: Registry,
    *,
    received: datetime,
    accepts: tuple[type[Event], ...] = (Event,),
    unknown: bool = False,
) -> Envelope:
    """Return the envelope in a message that arrived as event ``name``.

    Tolerant: fields that this side doesn't know are ignored, a newer version than known is read
    as the newest known, an older one goes through the upcasts to what is in ``accepts``.
    Everything in the message is untrusted. ``received`` stands in for a missing time. With ``unknown``, a name that isn't declared gives an `UnknownEvent`.

    Raises:
        DecodeError: It isn't an event, or another one than its subject says.
        UnknownEventError: No class is declared for that name, or that version of it.
        InvalidEventError: The payload doesn't fit the class.
        UpcastError: An upcast fails on it.
    """
    headers = h.lowered(message.headers)
    id = _required(message, headers, h.ID)
    if not is_id(id):
        raise _not(message, f"{h.ID} must be 1 to 128 printable ASCII characters without spaces")
    if _required(message, headers, h.TYPE) != name:
        raise _not(message, f"{h.TYPE} is {headers[h.TYPE][:64]!r}, the subject says '{name}'")
    if headers.get(h.CONTENT_TYPE, h.JSON) != h.JSON:
        _check_media_type(message, headers[h.CONTENT_TYPE])
    # A producer that names no version means the one there is.
    schema = headers.get(h.DATA_SCHEMA)
    version = None if schema is None else _version(schema)
    if headers.get(_DELETED) and headers.get(h.KIND) == "state":
        event: Event = StateDeleted(name=name, key=h.ordering_key(headers))
    elif unknown and name not in registry:
        event = _unknown(message, name, version or 1)
    else:
        event = _event(registry.reading(name, version, accepts), name, version, message.body)
    return Envelope(  # by position, which is quicker
        event,
        message.body,
        id,
        name,
        version or (event.event_spec.version if event.event_spec else 1),
        h.parse_time(headers.get(h.TIME, "")) or received,
        h.unquoted(headers.get(h.SOURCE, "")),
        _optional(headers, h.KEY),
        _correlation(headers) or id,
        _optional(headers, h.CAUSATION_ID),
        h.tags_in(headers) if h.TAGS in headers else (),
        h.unquoted(headers.get(h.KIND, "event")),
        expires=_moment(headers, _EXPIRES),
        due=_moment(headers, _DUE),
        headers=_user_headers(headers),
        trace=_trace(headers),
    )


def _check_media_type(message: Message, value: str) -> None:
    media_type = value.split(";", maxsplit=1)[0].strip().lower()
    if media_type != h.JSON and not media_type.endswith("+json"):
        raise _not(message, f"{h.CONTENT_TYPE} is {media_type[:64]!r}, not {h.JSON}")


def invalid(
    name: str, error: ValidationError, versions: tuple[int, int] | None = None
) -> InvalidEventError:
    """Return our error for pydantic's: the paths and messages, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [
        (".".join(str(part) for part in one["loc"])[:MAX_PATH], one["msg"])
        for one in found[:MAX_PROBLEMS]
    ]
    if len(found) > MAX_PROBLEMS:
        problems.append(("", f"and {len(found) - MAX_PROBLEMS} more problems"))
    return InvalidEventError(name=name, problems=problems, versions=versions)


def _event(reading: Reading, name: str, version: int | None, body: bytes) -> Event:
    if reading.steps:
        body = _upcasted(reading.steps, name, body)
    try:
        read: Event = reading.event.__pydantic_validator__.validate_json(body, extra="ignore")
    except ValidationError as exc:
        between = version not in (None, reading.version)
        raise invalid(name, exc, (version or 0, reading.version) if between else None) from exc
    except Exception as exc:
        # A validator of the user's: pydantic passes on all but ValueError and AssertionError.
        problem = f"its validators raised {type(exc).__name__}"
        raise InvalidEventError(name=name, problems=[("", problem)]) from exc
    return read


def _upcasted(steps: tuple[Upcast, ...], name: str, body: bytes) -> bytes:
    try:
        data = _PAYLOAD.validate_json(body)
    except ValidationError as exc:
        raise invalid(name, exc) from exc
    for step in steps:
        data = step(data)
    try:
        return _PAYLOAD.dump_json(data, warnings="error")
    except Exception as exc:
        raise UpcastError(f"{steps[-1]} gave what isn't JSON: {type(exc).__name__}") from exc


def _unknown(message: Message, name: str, version: int) -> UnknownEvent:
    try:
        data = _JSON.validate_json(message.body)
        # Refuses what the parser took and JSON can't hold, such as NaN.
        return UnknownEvent(name=name, version=version, data=data)
    except ValidationError as exc:
        raise _not(message, "its body isn't JSON") from exc


def _not(message: Message, problem: str) -> DecodeError:
    return DecodeError(subject=message.subject, problem=problem, size=len(message.body))


def _required(message: Message, headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise _not(message, f"header {name} is missing")
    return h.unquoted(value)


def _optional(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else h.unquoted(value)


def version_of(headers: Mapping[str, str]) -> int:
    """Return the version of an event, by its headers in lower case; 1 where they don't say."""
    return _version(headers.get(h.DATA_SCHEMA, ""))


@lru_cache(maxsize=1024)
def _version(schema: str) -> int:
    match = _SCHEMA_VERSION.search(schema)
    return int(match[1]) if match and int(match[1]) > 0 else 1


def _moment(headers: Mapping[str, str], name: str) -> datetime | None:
    text = headers.get(name)
    return None if text is None else h.parse_time(text)


def _trace(headers: Mapping[str, str]) -> Mapping[str, str]:
    found = {one: headers[one] for one in h.TRACE if one in headers}
    return found or NO_TRACE


def _correlation(headers: Mapping[str, str]) -> str | None:
    id = headers.get(h.CORRELATION_ID)
    if id is not None and "%" not in id and is_id(id):
        return id
    for name in (h.CORRELATION_ID, *h.CORRELATION_ALIASES):
        value = h.unquoted(headers.get(name, ""))
        if is_id(value):
            return value
    return None


def _user_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    theirs = headers.keys() - _USUAL
    if not theirs:
        return NO_HEADERS
    return {
        name: h.unquoted(headers[name])
        for name in headers
        if name in theirs and not name.startswith(("ce-", "nats-", "eventbus-"))
    }
