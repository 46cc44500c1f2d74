"""Durations: what is read, and what is refused."""

import math
from datetime import timedelta

import pytest

from eventbus.duration import Duration, seconds


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (0, 0.0),
        (2, 2.0),
        (0.25, 0.25),
        (timedelta(minutes=1, milliseconds=5), 60.005),
        ("250ms", 0.25),
        ("5s", 5.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("7d", 604800.0),
        ("1.5h", 5400.0),
        ("30", 30.0),
        (" 5 m ", 300.0),
    ],
)
def test_a_duration_is_read_as_seconds(written: Duration, meant: float) -> None:
    assert seconds(written) == meant
    assert type(seconds(written)) is float


@pytest.mark.parametrize(
    "written",
    [
        True,
        -1,
        -0.001,
        "-5s",
        "",
        "soon",
        "5 parsecs",
        "5M",
        "1h30m",
        ".5s",
        "1e3",
        math.nan,
        math.inf,
        "inf",
        "nan",
        timedelta(seconds=-1),
        pytest.param(timedelta.max, id="longest timedelta"),
        pytest.param(10**400, id="huge"),
        pytest.param("9" * 400, id="huge text"),
        None,
        [5],
        b"5s",
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused_with_one_kind_of_error(written: object) -> None:
    with pytest.raises(ValueError, match="isn't a duration"):
        seconds(written)  # type: ignore[arg-type]


def test_a_duration_is_short_enough_for_nanoseconds_and_dates() -> None:
    longest = seconds("36500d")

    assert longest * 1e9 < 2**63
    with pytest.raises(ValueError, match="100 years"):
        seconds(longest + 1)
