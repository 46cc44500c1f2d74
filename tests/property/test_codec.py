"""The codec: generated events come back, and anything at all is an event or a clear error."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import JsonValue

from eventbus import codec, deadletter
from eventbus import headers as h
from eventbus.correlation import Scope
from eventbus.envelope import Envelope, Message
from eventbus.errors import CodecError, DecodeError, SchemaError
from eventbus.event import Data, Event
from eventbus.ids import is_id
from eventbus.registry import Registry
from eventbus.subject import Subjects

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(Data):
    text: str
    number: float | None = None
    children: tuple["Inner", ...] = ()


class Everything(Event, name="thing.changed", version=2, key="text", tags=("a", "b:c")):
    text: str
    number: int
    ratio: float
    flag: bool
    raw: bytes
    when: datetime
    day: date
    took: timedelta
    amount: Decimal
    id: UUID
    colour: Colour
    kind: Literal["x", "y"]
    inner: Inner
    several: tuple[Inner, ...]
    named: dict[str, Inner | None]
    free: dict[str, JsonValue]


REGISTRY = Registry()
REGISTRY.register(Everything)

UNICODE = st.text(alphabet=st.characters(codec="utf-8"))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | FLOATS | UNICODE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(UNICODE, inner, max_size=3),
    max_leaves=8,
)
INNERS = st.recursive(
    st.builds(Inner, text=UNICODE, number=st.none() | FLOATS, children=st.just(())),
    lambda inner: st.builds(Inner, text=UNICODE, children=st.lists(inner, max_size=2).map(tuple)),
    max_leaves=3,
)
EVENTS = st.builds(
    Everything,
    text=UNICODE,
    number=st.integers(-(2**70), 2**70),
    ratio=FLOATS,
    flag=st.booleans(),
    raw=st.binary(),
    when=st.datetimes(timezones=st.just(UTC)),
    day=st.dates(),
    took=st.timedeltas(timedelta(days=-1000), timedelta(days=1000)),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    id=st.uuids(),
    colour=st.sampled_from(Colour),
    kind=st.sampled_from(["x", "y"]),
    inner=INNERS,
    several=st.lists(INNERS, max_size=2).map(tuple),
    named=st.dictionaries(UNICODE, st.none() | INNERS, max_size=2),
    free=st.dictionaries(UNICODE, JSON, max_size=3),
)
IDS = st.text(min_size=1, max_size=128).filter(is_id) | st.uuids().map(str)
HEADER_NAMES = st.from_regex(r"x-[a-z0-9-]{1,20}", fullmatch=True)
PLAIN = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126))
TIMES = st.none() | st.datetimes(timezones=st.just(UTC))
ENVELOPES = st.builds(
    lambda event, key, expires, **rest: replace(
        Envelope.of(event, key=key, time=NOW, scope=Scope(), **rest), expires=expires
    ),
    EVENTS,
    source=UNICODE,
    id=IDS,
    key=st.none() | UNICODE,
    correlation_id=IDS,
    headers=st.dictionaries(HEADER_NAMES, UNICODE, max_size=3),
    expires=TIMES,
)


def decoded(message: Message, *, unknown: bool = False) -> Envelope:
    name = Subjects().event_name(message.subject) or "unknown"
    return codec.decode(message, name, REGISTRY, received=NOW, unknown=unknown)


@given(ENVELOPES)
def test_what_is_encoded_comes_back(envelope: Envelope) -> None:
    assert decoded(codec.encode(envelope, "events.thing.changed")) == envelope


@given(ENVELOPES, st.dictionaries(st.sampled_from(h.TRACE), st.text()))
def test_every_header_on_the_wire_is_printable_ascii(
    envelope: Envelope, trace: dict[str, str]
) -> None:
    message = codec.encode(replace(envelope, trace=trace), "events.thing.changed")

    assert [value for value in message.headers.values() if not h.is_plain(value)] == []
    assert [name for name in message.headers if not h.is_plain(name)] == []


@given(EVENTS)
def test_a_body_is_json_that_any_language_reads(event: Everything) -> None:
    body = event.event_body()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert isinstance(json.loads(body, parse_constant=refuse), dict)


@given(EVENTS, st.dictionaries(st.from_regex(r"new_[a-z]{1,5}", fullmatch=True), JSON, max_size=2))
def test_fields_of_a_newer_producer_change_nothing(
    event: Everything, more: dict[str, object]
) -> None:
    body = json.loads(event.event_body())
    body["inner"] |= more
    message = codec.encode(
        Envelope.of(event, source="s", time=NOW, scope=Scope()), "events.thing.changed"
    )

    read = decoded(replace(message, body=json.dumps({**body, **more}).encode()))

    assert read.event == event


KNOWN_NAMES = st.sampled_from(
    [
        "ce-id",
        "ce-type",
        "ce-time",
        "ce-source",
        "ce-dataschema",
        "ce-partitionkey",
        "ce-correlationid",
        "ce-causationid",
        "ce-kind",
        "ce-tags",
        "content-type",
        "eventbus-expires",
        "eventbus-attempt",
        "x-correlation-id",
        "traceparent",
        "Ce-Id",
    ]
)
VALUES = st.one_of(
    st.text(),
    PLAIN,
    IDS,
    st.sampled_from(
        [
            "thing.changed",
            "thing.changed/v2",
            "thing.changed/v999999999",
            "/v٣",
            "%",
            "%zz",
            "%FF",
            "%ED%A0%80",
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59.999999-23:59",
            "application/json;",
            "text/plain",
        ]
    ),
)
BODIES = st.one_of(
    st.binary(),
    JSON.map(lambda value: json.dumps(value).encode()),
    EVENTS.map(lambda event: event.event_body()),
    st.sampled_from(
        [
            b"NaN",
            b"1e999",
            b"[" * 100_000,
            b'{"a":' * 500,
            b'"\\ud800"',
            b"\xef\xbb\xbf{}",
            b"9" * 5000,
        ]
    ),
)
SUBJECTS = st.sampled_from(
    ["events.thing.changed", "events.thing.lost", "events-retry.a.b.c.d", ""]
)


@given(
    SUBJECTS | st.text(),
    st.dictionaries(KNOWN_NAMES | st.text(), VALUES),
    BODIES,
    st.booleans(),
    st.booleans(),
)
@example("events.thing.lost", {"ce-type": "thing.lost"}, b"NaN", True, True)
@example("events.thing.lost", {"ce-time": "0001-01-01T00:00:00+23:59"}, b"1", True, True)
def test_anything_at_all_is_an_event_or_a_clear_error(
    subject: str, headers: dict[str, str], body: bytes, unknown: bool, complete: bool
) -> None:
    name = Subjects().event_name(subject) or "unknown"
    if complete:
        headers = {"ce-id": "id-1", "ce-type": name, **headers}

    try:
        envelope = decoded(Message(subject, headers, body), unknown=unknown)
    except (CodecError, SchemaError) as exc:
        words = str(exc)
        assert len(words) < 10_000
        return

    assert is_id(envelope.id)
    assert is_id(envelope.correlation_id)
    assert envelope.name == name
    assert envelope.version >= 1
    assert envelope.time.tzinfo is UTC


@given(st.dictionaries(KNOWN_NAMES | st.text(), VALUES), st.binary())
def test_anything_at_all_can_be_buried_and_is_never_taken_for_a_letter(
    headers: dict[str, str], body: bytes
) -> None:
    failure = deadletter.Failure(
        reason=deadletter.Reason.INVALID,
        error_type="",
        error_message="x",
        error_stack="",
        failed_at=NOW,
        attempts=0,
        listener="send",
        service="mail",
        original_subject="events.thing.changed",
        original_stream="EVENTS",
        original_seq=1,
        fingerprint="0",
    )
    message = Message("events.thing.changed", headers, body)

    letter = deadletter.build(message, failure, subject="events-dlq.x", id="dlq:1")

    assert letter.body == body
    assert all(h.is_plain(name) and h.is_plain(value) for name, value in letter.headers.items())
    assert deadletter.read(letter) == failure
    try:
        deadletter.read(message)
    except DecodeError:
        return
    raise AssertionError("a message without our headers was read as a dead letter")
