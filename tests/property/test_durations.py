"""Durations and moments: whatever way they are written, they mean one thing or are refused."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from eventbus.duration import moment, seconds

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
SINCE = datetime(2026, 3, 1, 10, tzinfo=UTC)

zones = some.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
times = some.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001 - the strategy adds a zone
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=some.one_of(some.just(UTC), zones),
)


@given(some.integers(0, 36_500), some.sampled_from(sorted(UNITS)), some.sampled_from(["", " "]))
def test_a_number_and_its_unit_are_so_many_seconds(count: int, unit: str, between: str) -> None:
    assert seconds(f"{count}{between}{unit}") == pytest.approx(count * UNITS[unit])


@given(some.timedeltas(timedelta(0), timedelta(days=36_500)))
def test_a_timedelta_its_seconds_and_their_text_are_the_same_duration(length: timedelta) -> None:
    as_seconds = length.total_seconds()

    assert seconds(length) == seconds(as_seconds) == seconds(f"{as_seconds:f}")
    assert moment(length, SINCE) == moment(as_seconds, SINCE) == SINCE + length


@given(some.one_of(some.text(), some.floats(), some.none(), some.binary(), some.timedeltas()))
def test_anything_is_a_duration_within_a_century_or_one_kind_of_error(value: object) -> None:
    result = 0.0
    with suppress(ValueError):
        result = seconds(value)  # type: ignore[arg-type]

    assert 0 <= result <= 36_500 * 86_400


@given(times)
def test_a_moment_is_the_same_time_in_utc(time: datetime) -> None:
    result = moment(time, SINCE)

    assert result == time
    assert result.tzinfo is UTC


@given(some.datetimes())
def test_a_time_without_a_zone_is_no_moment(time: datetime) -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        moment(time, SINCE)


@given(
    some.datetimes(
        min_value=datetime(2130, 1, 1),  # noqa: DTZ001 - the strategy adds a zone
        timezones=some.one_of(zones, some.just(UTC)),
    )
)
def test_a_moment_that_no_schedule_can_hold_is_refused(time: datetime) -> None:
    with pytest.raises(ValueError, match="100 years away"):
        moment(time, SINCE)
