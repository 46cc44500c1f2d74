"""Header values: whatever is written is safe on the wire and comes back."""

import string
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from eventbus.errors import HeaderError
from eventbus.headers import (
    check_user_headers,
    forwarded,
    is_plain,
    parse_time,
    quoted,
    render_time,
    unquoted,
)

ANY_TEXT = st.text()
"""Lone surrogates too."""
UNICODE = st.text(alphabet=st.characters(codec="utf-8"))
TOKEN = set(string.ascii_letters + string.digits + "!#$&'*+.^_`|~-")
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(UNICODE)
def test_what_is_quoted_comes_back(value: str) -> None:
    assert unquoted(quoted(value)) == value


@given(ANY_TEXT)
def test_what_is_quoted_is_printable_ascii_without_spaces(value: str) -> None:
    written = quoted(value)

    assert is_plain(written)
    assert not {"\r", "\n", " ", '"'} & set(written)


@given(ANY_TEXT)
def test_reading_never_raises(value: str) -> None:
    assert isinstance(unquoted(value), str)


@given(st.dictionaries(ANY_TEXT | st.sampled_from(["ce-id", "NATS-x", "x-a", "X-A"]), ANY_TEXT))
def test_user_headers_are_safe_or_refused(headers: dict[str, str]) -> None:
    try:
        checked = check_user_headers(headers)
    except HeaderError:
        return

    assert len(checked) == len(headers)
    for name, value in checked.items():
        assert set(name) <= TOKEN
        assert not name.startswith(("ce-", "nats-", "eventbus-"))
        assert unquoted(quoted(value)) == value


@given(st.dictionaries(ANY_TEXT | st.sampled_from(["nats-ttl", "Nats-Msg-Id", "x-a"]), ANY_TEXT))
def test_headers_of_others_are_made_safe_to_send_again(headers: dict[str, str]) -> None:
    sent = forwarded(headers, without=("x-",))

    assert sent.keys() <= headers.keys()
    for name, value in sent.items():
        assert set(name) <= TOKEN
        assert not name.lower().startswith(("nats-", "x-"))
        assert is_plain(value)
        assert value == headers[name] or not is_plain(headers[name])


@given(ANY_TEXT | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{0,20}[+-][0-9:]{0,8}"))
def test_a_text_is_a_time_in_utc_or_none(text: str) -> None:
    time = parse_time(text)

    assert time is None or time.tzinfo is UTC


@given(
    st.datetimes(
        min_value=datetime(1, 1, 3),  # noqa: DTZ001 - the zone is drawn
        max_value=datetime(9999, 12, 29),  # noqa: DTZ001
        timezones=ZONES,
    )
)
def test_a_time_comes_back_as_it_was_written(time: datetime) -> None:
    assert parse_time(render_time(time)) == time
    assert is_plain(render_time(time))
