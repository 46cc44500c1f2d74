"""Envelope to message and back: what is written, what is accepted, what is refused."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import field_validator

from eventbus import codec
from eventbus.correlation import Scope
from eventbus.envelope import Envelope, Message
from eventbus.errors import (
    CodecError,
    DecodeError,
    InvalidEventError,
    SchemaError,
    UnknownEventError,
)
from eventbus.event import Data, Event, UnknownEvent
from eventbus.registry import Registry

NOW = datetime(2026, 3, 1, 10, 0, 0, 250, UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Line(Data):
    sku: str


class OrderPlaced(Event, name="order.placed", version=2, key="order_id", tags=("shop", "v:2")):
    order_id: str
    lines: tuple[Line, ...] = ()


REGISTRY = Registry()
REGISTRY.register(OrderPlaced)
EVENT = OrderPlaced(order_id="o-1", lines=(Line(sku="a"),))


def enveloped(event: Event = EVENT, **changes: Any) -> Envelope:
    envelope = Envelope.of(event, source="shop", time=NOW, id="id-1", scope=Scope("c-1", "id-0"))
    return replace(envelope, **changes)


def arrived(body: bytes = b'{"order_id":"o-1"}', **headers: str | None) -> Message:
    """Return a message as it comes in; a header of None is left out."""
    wanted = {"ce_id": "id-1", "ce_type": "order.placed", **headers}
    lower = {name.replace("_", "-"): value for name, value in wanted.items() if value is not None}
    return Message("events.order.placed", lower, body)


def decoded(
    message: Message, name: str = "order.placed", registry: Registry = REGISTRY, **options: bool
) -> Envelope:
    return codec.decode(message, name, registry, received=NOW, **options)


def test_an_event_is_written_in_cloudevents_binary_mode() -> None:
    envelope = enveloped(headers={"x-tenant": "a b"}, trace={"traceparent": TRACEPARENT})

    message = codec.encode(envelope, "events.order.placed")

    assert message == Message(
        subject="events.order.placed",
        headers={
            "ce-specversion": "1.0",
            "ce-id": "id-1",
            "ce-source": "shop",
            "ce-type": "order.placed",
            "ce-time": "2026-03-01T10:00:00.000250Z",
            "ce-dataschema": "order.placed/v2",
            "content-type": "application/json",
            "ce-correlationid": "c-1",
            "ce-kind": "event",
            "ce-causationid": "id-0",
            "ce-partitionkey": "o-1",
            "ce-tags": "shop,v:2",
            "traceparent": TRACEPARENT,
            "x-tenant": "a%20b",
        },
        body=b'{"order_id":"o-1","lines":[{"sku":"a"}]}',
        id="id-1",
    )


def test_what_is_written_is_read_back() -> None:
    envelope = enveloped(
        key="a b/ü\n",
        expires=NOW + timedelta(minutes=5),
        headers={"x-tenant": 'Ümläut "quoted" 100%', "x-empty": ""},
        trace={"traceparent": TRACEPARENT, "tracestate": "a=1, b=2", "baggage": "k=v;p"},
    )

    assert decoded(codec.encode(envelope, "events.order.placed")) == envelope


def test_what_a_peer_put_in_trace_headers_can_not_break_ours() -> None:
    envelope = enveloped(trace={"traceparent": TRACEPARENT, "baggage": "a=1\r\nNats-Msg-Id: x"})

    message = codec.encode(envelope, "events.order.placed")

    assert "baggage" not in message.headers
    assert message.headers["traceparent"] == TRACEPARENT


def test_a_message_with_id_and_type_alone_is_an_event() -> None:
    v1 = Registry()
    v1.register(type(Event)("One", (Event,), {"__annotations__": {"x": int}}, name="order.placed"))

    envelope = decoded(arrived(b'{"x":1}'), registry=v1)

    assert envelope == Envelope(
        event=envelope.event,
        body=b'{"x":1}',
        id="id-1",
        name="order.placed",
        version=1,
        time=NOW,
        source="",
        key=None,
        correlation_id="id-1",
        causation_id=None,
    )


def test_header_names_are_read_in_any_case() -> None:
    message = Message(
        "events.order.placed",
        {"Ce-Id": "id-1", "CE-TYPE": "order.placed", "Ce-DataSchema": "order.placed/v2"},
        b'{"order_id":"o-1"}',
    )

    assert decoded(message).version == 2


@pytest.mark.parametrize("header", ["x-correlation-id", "correlation_id"])
def test_a_correlation_id_of_another_convention_is_taken_over(header: str) -> None:
    message = arrived(ce_dataschema="order.placed/v2")
    headers = {**message.headers, header: "c-9"}

    assert decoded(replace(message, headers=headers)).correlation_id == "c-9"


def test_a_correlation_id_that_is_none_is_left_out() -> None:
    message = arrived(ce_dataschema="order.placed/v2", ce_correlationid="a%0Ab")

    assert decoded(message).correlation_id == "id-1"


def test_fields_of_a_newer_producer_are_ignored_at_every_depth() -> None:
    body = b'{"order_id":"o-1","new":1,"lines":[{"sku":"a","new":2}]}'

    envelope = decoded(arrived(body, ce_dataschema="order.placed/v3"))

    assert envelope.event == EVENT
    assert envelope.version == 3
    assert envelope.body == body


def test_missing_and_wrong_fields_are_all_named_without_their_values() -> None:
    body = b'{"lines":[{"sku":"a"},{"sku":["s3cr3t"]}]}'

    with pytest.raises(InvalidEventError) as raised:
        decoded(arrived(body, ce_dataschema="order.placed/v2"))

    assert raised.value.problems == (
        ("order_id", "Field required"),
        ("lines.1.sku", "Input should be a valid string"),
    )
    assert "s3cr3t" not in str(raised.value)


def test_a_body_with_very_many_problems_makes_a_short_error() -> None:
    body = b'{"order_id":"o-1","lines":[' + b",".join([b"{}"] * 5000) + b"]}"

    with pytest.raises(InvalidEventError) as raised:
        decoded(arrived(body, ce_dataschema="order.placed/v2"))

    assert len(raised.value.problems) == codec.MAX_PROBLEMS + 1
    assert raised.value.problems[-1] == ("", "and 4980 more problems")


def test_a_key_of_the_body_can_not_blow_up_the_error() -> None:
    class Counted(Event, name="thing.counted"):
        counts: dict[str, int]

    registry = Registry()
    registry.register(Counted)
    body = b'{"counts":{"' + b"x" * 100_000 + b'":"no"}}'

    with pytest.raises(InvalidEventError) as raised:
        decoded(arrived(body, ce_type="thing.counted"), "thing.counted", registry)

    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"ce_id": None}, "ce-id is missing"),
        ({"ce_id": ""}, "ce-id is missing"),
        ({"ce_id": "a%20b"}, "ce-id must be"),
        ({"ce_id": "x" * 129}, "ce-id must be"),
        ({"ce_id": "%FF"}, "ce-id must be"),
        ({"ce_type": None}, "ce-type is missing"),
        ({"ce_type": "order.paid"}, "the subject says 'order.placed'"),
        ({"content_type": "text/plain"}, "content-type is 'text/plain'"),
        ({"content_type": ""}, "content-type is ''"),
    ],
    ids=str,
)
def test_a_message_that_is_no_event_is_refused_with_what_is_wrong(
    headers: dict[str, str | None], problem: str
) -> None:
    with pytest.raises(DecodeError) as raised:
        decoded(arrived(**headers))

    assert problem in str(raised.value)
    assert raised.value.subject == "events.order.placed"


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=utf-8", "application/cloudevents+json"],
)
def test_json_is_accepted_under_each_of_its_names(content_type: str) -> None:
    message = arrived(ce_dataschema="order.placed/v2", content_type=content_type)

    assert decoded(message).id == "id-1"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b'"x"', b"null", b"{}", b"NaN"])
def test_a_body_that_is_not_the_payload_is_refused(body: bytes) -> None:
    with pytest.raises((CodecError, SchemaError)):
        decoded(arrived(body, ce_dataschema="order.placed/v2"))


def test_a_validator_that_raises_anything_makes_the_event_invalid() -> None:
    class Fragile(Event, name="thing.broken"):
        x: int

        @field_validator("x")
        @classmethod
        def _check(cls, value: int) -> int:
            return {1: 1}[value]

    registry = Registry()
    registry.register(Fragile)

    with pytest.raises(InvalidEventError, match="its validators raised KeyError") as raised:
        decoded(arrived(b'{"x":2}', ce_type="thing.broken"), "thing.broken", registry)

    assert isinstance(raised.value.__cause__, KeyError)


def test_an_undeclared_event_is_unknown() -> None:
    with pytest.raises(UnknownEventError):
        decoded(arrived(ce_type="order.paid"), "order.paid")


def test_a_listener_of_any_event_gets_an_undeclared_one_as_its_data() -> None:
    message = arrived(b'{"a":[1]}', ce_type="order.paid", ce_dataschema="order.paid/v4")

    envelope = decoded(message, "order.paid", unknown=True)

    assert envelope.event == UnknownEvent(name="order.paid", version=4, data={"a": [1]})
    assert envelope.version == 4


def test_a_listener_of_any_event_gets_a_declared_one_as_its_class() -> None:
    envelope = decoded(arrived(ce_dataschema="order.placed/v2"), unknown=True)

    assert isinstance(envelope.event, OrderPlaced)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"NaN", b"1e999", b'{"a":[-Infinity]}'])
def test_an_undeclared_event_whose_body_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError, match="isn't JSON"):
        decoded(arrived(body, ce_type="order.paid"), "order.paid", unknown=True)


@pytest.mark.parametrize(
    ("dataschema", "version"),
    [
        ("order.placed/v2", 2),
        ("https://example.org/order.placed/v7", 7),
        ("order.placed/v02", 2),
        ("order.placed/v0", 1),
        ("order.placed", 1),
        ("order.placed/v99999999999999999999", 1),
        ("", 1),
    ],
)
def test_the_version_is_the_end_of_the_data_schema(dataschema: str, version: int) -> None:
    message = arrived(b"{}", ce_type="order.paid", ce_dataschema=dataschema)

    assert decoded(message, "order.paid", unknown=True).version == version


@pytest.mark.parametrize("time", ["", "yesterday", "0001-01-01T00:00:00+23:59"])
def test_the_time_of_storage_stands_in_for_one_that_can_not_be_read(time: str) -> None:
    assert decoded(arrived(ce_dataschema="order.placed/v2", ce_time=time)).time == NOW


def test_user_headers_are_those_that_no_convention_owns() -> None:
    message = arrived(
        ce_dataschema="order.placed/v2",
        nats_msg_id="1",
        eventbus_attempt="2",
        traceparent=TRACEPARENT,
        x_tenant="a%20b",
    )

    envelope = decoded(message)

    assert envelope.headers == {"x-tenant": "a b"}
    assert envelope.trace == {"traceparent": TRACEPARENT}


def test_data_for_a_named_event_is_validated_strictly() -> None:
    data = {"lines": [{"sku": "a", "skew": 1}], "ordr_id": "o-1"}

    with pytest.raises(InvalidEventError) as raised:
        codec.validate(OrderPlaced, data)

    assert raised.value.name == "order.placed"
    assert sorted(field for field, _ in raised.value.problems) == [
        "lines.0.skew",
        "order_id",
        "ordr_id",
    ]


def test_valid_data_becomes_the_event() -> None:
    assert codec.validate(OrderPlaced, {"order_id": "o-1", "lines": [{"sku": "a"}]}) == EVENT
