"""Build a dead letter from a message and a failure, and read it back.

The body stays byte for byte, the headers stay without those of the server, and
``Eventbus-Dead-*`` says what happened.
"""

import hashlib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

from eventbus import headers as h
from eventbus.delivery import Delivery, Reason
from eventbus.envelope import Message
from eventbus.errors import DecodeError, error_type

__all__ = ("Failure", "Origin", "build", "dead_letter_id", "failure_of", "read", "without_body")

BODY_LEFT_OUT = h.DEAD + "Body-Left-Out"
"""On a letter that couldn't hold the body: how many bytes it had."""
MAX_STACK = 8192
"""Longest stack kept, in bytes on the wire; the end of it, where the error is."""
MAX_MESSAGE = 1536
"""Longest error message kept, in bytes on the wire; the start of it."""
MAX_TYPE = 256
"""Longest name of an error's class kept, in bytes on the wire."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why and where an event became a dead letter; each field is a header."""

    reason: Reason
    error_type: str
    error_message: str
    error_stack: str
    failed_at: datetime
    attempts: int
    listener: str
    service: str
    original_subject: str
    original_stream: str
    original_seq: int
    fingerprint: str
    """Equal for failures of one kind: listener, event, error type and where it was raised."""
    redrive: int = 0
    """Which redrive of the event failed; 0 where it had not been redriven."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a delivery failed."""

    service: str
    listener: str
    subject: str
    """The event's own subject, also where a retry came in on another."""


def failure_of(  # noqa: PLR0913 - one for each thing that is told of a failure
    delivery: Delivery,
    origin: Origin,
    *,
    attempts: int,
    reason: Reason,
    error: BaseException | str,
    now: datetime,
    redrive: int = 0,
) -> Failure:
    """Return the record of a failed delivery; ``error`` is what was raised, or words.

    ``attempts`` is how often the listener ran since the event came to it, or was last redriven;
    0 where it never did.
    """
    error_type, text = _described(error)
    return Failure(
        reason=reason,
        error_type=_start(error_type, MAX_TYPE),
        error_message=_start(text, MAX_MESSAGE),
        error_stack=_stack(error),
        failed_at=now,
        attempts=attempts,
        listener=origin.listener,
        service=origin.service,
        original_subject=origin.subject,
        original_stream=delivery.stream,
        original_seq=delivery.sequence,
        fingerprint=_fingerprint(origin, error_type, error),
        redrive=redrive,
    )


def build(
    message: Message, failure: Failure, *, subject: str, id: str, stack: bool = True
) -> Message:
    """Return the dead letter of a message.

    Without ``stack`` its headers are at most `eventbus.drivers.base.HEADROOM` longer than the
    message's own, so that it fits wherever the event did.
    """
    headers = h.forwarded(message.headers, without=(h.DEAD.lower(),))
    left_out = {
        name
        for name, said in (("redrive", failure.redrive > 0), ("error_stack", stack))
        if not said
    }
    for field in fields(failure):
        if field.name not in left_out:
            headers[_header(field.name)] = _written(getattr(failure, field.name))
    return Message(subject, headers, message.body, id)


def without_body(letter: Message) -> Message:
    """Return a letter without the body, saying how long that was.

    For messages of others that fill the server's limit: emits leave room for a letter's headers.
    The body is in the original's stream, as long as that keeps it.
    """
    headers = {**letter.headers, BODY_LEFT_OUT: str(len(letter.body))}
    return replace(letter, headers=headers, body=b"")


def read(message: Message) -> Failure:
    """Return the failure that a dead letter tells of.

    Raises:
        DecodeError: It isn't a dead letter.
    """
    headers = h.lowered(message.headers)
    try:
        return Failure(
            reason=Reason(_value(headers, "reason")),
            error_type=_value(headers, "error_type"),
            error_message=_value(headers, "error_message"),
            error_stack=_value(headers, "error_stack"),
            failed_at=h.parse_time(_value(headers, "failed_at")) or datetime.fromtimestamp(0, UTC),
            attempts=int(_value(headers, "attempts")),
            listener=_value(headers, "listener"),
            service=_value(headers, "service"),
            original_subject=_value(headers, "original_subject"),
            original_stream=_value(headers, "original_stream"),
            original_seq=int(_value(headers, "original_seq")),
            fingerprint=_value(headers, "fingerprint"),
            redrive=int(_value(headers, "redrive") or 0),
        )
    except ValueError as exc:
        raise DecodeError(
            subject=message.subject, problem=f"not a dead letter: {exc}", size=len(message.body)
        ) from exc


def dead_letter_id(durable: str, delivery: Delivery) -> str:
    """Return the message id of a delivery's dead letter: one for each stored event and durable.

    A crash between storing the letter and terminating the original makes a duplicate that the
    server drops, never a loss. The stored time tells a recreated stream's sequences apart.
    """
    stored_ns = int(delivery.stored_at.timestamp() * 1_000_000) * 1000
    return f"dlq:{durable}:{delivery.stream}:{delivery.sequence}:{stored_ns}"


def _header(field: str) -> str:
    return h.DEAD + "-".join(part.capitalize() for part in field.split("_"))


def _value(headers: Mapping[str, str], field: str) -> str:
    return h.unquoted(headers.get(_header(field).lower(), ""))


def _written(value: object) -> str:
    return h.render_time(value) if isinstance(value, datetime) else h.quoted(str(value))


def _described(error: BaseException | str) -> tuple[str, str]:
    if isinstance(error, str):
        return "", error
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the listener's class; its fault must not cost the letter
        text = "(its text can't be had)"
    return error_type(error), text


def _start(text: str, most: int) -> str:
    """Return as much of a text as its header holds in ``most`` bytes."""
    text = text[:most]
    while len(h.quoted(text)) > most:
        text = text[: len(text) * 7 // 8]
    return text


def _stack(error: BaseException | str) -> str:
    if isinstance(error, str) or error.__traceback__ is None:
        return ""
    stack = "".join(traceback.format_exception(error))[-MAX_STACK:]
    # Quoting triples some characters; cut by what the wire will carry.
    while len(h.quoted(stack)) > MAX_STACK:
        stack = stack[len(stack) // 8 + 1 :]
    return stack


def _fingerprint(origin: Origin, error_type: str, error: BaseException | str) -> str:
    place = ""
    if not isinstance(error, str) and error.__traceback__ is not None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename.rsplit('/', 1)[-1]}:{last.name}"
    text = "|".join((origin.service, origin.listener, origin.subject, error_type, place))
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=6).hexdigest()
