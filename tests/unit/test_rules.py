"""Rules of recurring events: a table of the nights when clocks change, and what is refused."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from eventbus.errors import DeclarationError
from eventbus.scheduler.rules import Cron, Every, Rule


def ticks(rule: Rule, start: str, count: int) -> list[str]:
    """Return the first ticks after a time, in UTC, as text."""
    time = datetime.fromisoformat(start).replace(tzinfo=UTC)
    found: list[str] = []
    for _ in range(count):
        time = rule.after(time)
        assert time.tzinfo is UTC
        found.append(f"{time:%m-%d %H:%M}")
    return found


PARIS, NEW_YORK, LORD_HOWE = "Europe/Paris", "America/New_York", "Australia/Lord_Howe"


@pytest.mark.parametrize(
    ("expression", "timezone", "start", "expected"),
    [
        # An ordinary week, with its weekend.
        ("0 9 * * 1-5", "UTC", "2026-03-05 10:00", ["03-06 09:00", "03-09 09:00", "03-10 09:00"]),
        # Nine in Paris is eight in UTC in winter, and seven in summer: clocks change on 03-29.
        ("0 9 * * *", PARIS, "2026-03-27 12:00", ["03-28 08:00", "03-29 07:00", "03-30 07:00"]),
        ("0 9 * * *", PARIS, "2026-10-23 12:00", ["10-24 07:00", "10-25 08:00", "10-26 08:00"]),
        # 02:30 isn't there on 03-29: it comes when that hour would have ended, 03:00 in summer.
        ("30 2 * * *", PARIS, "2026-03-28 00:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        # 02:30 is there twice on 10-25: it comes in the first.
        ("30 2 * * *", PARIS, "2026-10-24 00:00", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
        # Asked in the second 02:xx, it doesn't go back to the first.
        ("30 2 * * *", PARIS, "2026-10-25 01:10", ["10-26 01:30"]),
        # What comes every hour comes in both.
        ("30 * * * *", PARIS, "2026-10-24 23:45", ["10-25 00:30", "10-25 01:30", "10-25 02:30"]),
        ("*/20 2 * * *", PARIS, "2026-10-25 00:00", ["10-25 00:20", "10-25 00:40", "10-25 01:00"]),
        # And leaves out none in spring.
        ("30 * * * *", PARIS, "2026-03-29 00:00", ["03-29 00:30", "03-29 01:30", "03-29 02:30"]),
        # New York changes at two of its own clock.
        ("30 2 * * *", NEW_YORK, "2026-03-07 12:00", ["03-08 07:00", "03-09 06:30"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31 12:00", ["11-01 05:30", "11-02 06:30"]),
        # Half an hour only.
        ("15 2 * * *", LORD_HOWE, "2026-10-03 00:00", ["10-03 15:30", "10-04 15:15"]),
        # The last day of the month, and of February of a leap year.
        ("0 0 L * *", "UTC", "2028-02-01 00:00", ["02-29 00:00", "03-31 00:00", "04-30 00:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01 00:00", ["02-29 00:00"]),
    ],
)
def test_cron_ticks_by_the_clock_on_the_wall(
    expression: str, timezone: str, start: str, expected: list[str]
) -> None:
    assert ticks(Cron(expression, timezone), start, len(expected)) == expected


def test_every_ticks_at_whole_multiples_whoever_asks_and_when() -> None:
    rule = Every("5m")

    assert ticks(rule, "2026-03-01 10:02", 2) == ["03-01 10:05", "03-01 10:10"]
    assert ticks(rule, "2026-03-01 10:04", 2) == ["03-01 10:05", "03-01 10:10"]
    assert ticks(rule, "2026-03-01 10:05", 1) == ["03-01 10:10"]


TIMES = some.datetimes(
    datetime(2000, 1, 1),  # noqa: DTZ001 - the strategy adds a zone
    datetime(2090, 1, 1),  # noqa: DTZ001
    timezones=some.just(UTC),
)
RULES: some.SearchStrategy[Rule] = some.one_of(
    some.floats(1, 10**6).map(Every),
    some.builds(
        Cron,
        some.sampled_from(
            ["0 9 * * 1-5", "30 2 * * *", "*/7 * * * *", "15 1-3 * * *", "0 0 L * *"]
        ),
        some.sampled_from([PARIS, NEW_YORK, LORD_HOWE, "UTC", "Asia/Kathmandu"]),
    ),
)


@given(RULES, TIMES)
def test_ticks_come_after_the_time_and_one_after_the_other(rule: Rule, time: datetime) -> None:
    first = rule.after(time)
    found = [first]
    for _ in range(5):
        found.append(rule.after(found[-1]))

    assert first > time
    assert all(one < another for one, another in pairwise(found))


@given(RULES, TIMES)
def test_a_rule_leaves_out_no_tick_whenever_it_is_asked(rule: Rule, time: datetime) -> None:
    first = rule.after(time)
    between = time + (first - time) / 2

    assert rule.after(between) == first
    assert rule.after(first - timedelta(microseconds=1)) == first


@pytest.mark.parametrize(
    ("expression", "timezone", "says"),
    [
        ("0 0 9 * * 1-5", "UTC", "5 fields"),
        ("9", "UTC", "5 fields"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("* * * * mon-sun", "UTC", "is wrong"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("0 9 * * *", "Europe/Pari", "no time zone 'Europe/Pari'"),
        ("0 9 * * *", "../etc/passwd", "no time zone"),
    ],
)
def test_what_cron_does_not_know_is_refused(expression: str, timezone: str, says: str) -> None:
    with pytest.raises(DeclarationError, match=says):
        Cron(expression, timezone)


@pytest.mark.parametrize("interval", [0, 0.5, "500ms", "soon", -1, None])
def test_an_interval_that_no_server_keeps_is_refused(interval: object) -> None:
    with pytest.raises(DeclarationError, match="every"):
        Every(interval)  # type: ignore[arg-type]
