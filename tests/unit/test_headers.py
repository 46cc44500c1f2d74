"""Header values and user headers."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from eventbus.errors import HeaderError
from eventbus.headers import (
    check_user_headers,
    is_plain,
    is_text,
    lowered,
    parse_time,
    quoted,
    render_time,
    unquoted,
)


@pytest.mark.parametrize("value", ["", "u-1", "text/plain;q=0.5", "a=b&c", "~!@#$&'()*+,/:;<=>?"])
def test_printable_ascii_is_written_as_it_is(value: str) -> None:
    assert quoted(value) == value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a b", "a%20b"),
        ('say "hi"', "say%20%22hi%22"),
        ("100%", "100%25"),
        ("ü", "%C3%BC"),
        ("a\r\nNats-Msg-Id: evil", "a%0D%0ANats-Msg-Id:%20evil"),
        ("\x00\x7f", "%00%7F"),
        ("€😀", "%E2%82%AC%F0%9F%98%80"),
    ],
)
def test_the_rest_is_percent_encoded_and_read_back(value: str, written: str) -> None:
    assert quoted(value) == written
    assert unquoted(written) == value


def test_a_lone_surrogate_is_written_as_its_escape() -> None:
    # As in the name of a file that isn't UTF-8, inside an error's message.
    assert quoted("caf\udce9") == "caf\\udce9"


def test_a_value_of_another_system_is_read_as_it_is() -> None:
    assert unquoted("a b, c") == "a b, c"


def test_names_are_read_in_any_case() -> None:
    assert lowered({"Ce-Id": "1", "X-A": "b"}) == {"ce-id": "1", "x-a": "b"}


def test_user_headers_are_kept_by_lower_case_name() -> None:
    assert check_user_headers({"X-Tenant": "a b", "version": ""}) == {
        "x-tenant": "a b",
        "version": "",
    }


@pytest.mark.parametrize(
    "name",
    [
        "ce-id",
        "CE-Anything",
        "nats-msg-id",
        "Nats-TTL",
        "Eventbus-Dead-Reason",
        "traceparent",
        "TraceState",
        "baggage",
        "Content-Type",
    ],
)
def test_a_name_that_the_bus_uses_is_refused(name: str) -> None:
    with pytest.raises(HeaderError, match="reserved") as raised:
        check_user_headers({name: "x"})

    assert raised.value.header == name


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ü", "a\x00", "x" * 129, "a,b"])
def test_what_is_no_header_name_is_refused(name: str) -> None:
    with pytest.raises(HeaderError, match="isn't a header name"):
        check_user_headers({name: "x"})


@pytest.mark.parametrize("value", [1, None, b"x", ["a"]])
def test_a_value_must_be_a_string(value: object) -> None:
    with pytest.raises(HeaderError, match="use a string"):
        check_user_headers({"x-a": value})  # type: ignore[dict-item]


@pytest.mark.parametrize("headers", [["x-a"], "x-a", 7], ids=["list", "string", "number"])
def test_what_is_no_mapping_is_refused(headers: Any) -> None:
    with pytest.raises(HeaderError, match="isn't a mapping"):
        check_user_headers(headers)


def test_a_name_that_is_no_string_is_refused() -> None:
    with pytest.raises(HeaderError, match="isn't a header name"):
        check_user_headers({7: "x"})  # type: ignore[dict-item]


def test_a_value_that_utf_8_can_not_hold_is_refused() -> None:
    with pytest.raises(HeaderError, match="isn't valid Unicode"):
        check_user_headers({"x-a": "caf\udce9"})


def test_one_name_in_two_cases_is_refused_and_not_lost() -> None:
    with pytest.raises(HeaderError, match="twice"):
        check_user_headers({"X-Tenant": "a", "x-tenant": "b"})


def test_plain_is_printable_ascii_and_text_is_what_utf_8_can_write() -> None:
    values = ["", "a b", "ü", "a\n", "\ud800"]

    assert [is_plain(value) for value in values] == [True, True, False, False, False]
    assert [is_text(value) for value in values] == [True, True, True, True, False]


def test_a_time_is_written_in_utc_with_microseconds() -> None:
    time = datetime(2026, 3, 1, 12, 0, 0, 5, timezone(timedelta(hours=2)))

    assert render_time(time) == "2026-03-01T10:00:00.000005Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T10:00:00Z",
        "2026-03-01T10:00:00",
        "2026-03-01T12:00:00+02:00",
        "2026-03-01T10:00:00.000+00:00",
    ],
)
def test_a_time_of_any_zone_is_read_in_utc_and_one_without_is_utc(text: str) -> None:
    time = parse_time(text)

    assert time == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert time.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-13-01T00:00:00Z", "1700000000", "2026-03-01T25:00:00Z", "\x00", "٢٠٢٦"],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_that_utc_can_not_hold_is_none(text: str) -> None:
    assert parse_time(text) is None
