"""The breaker as a table: what opens it, what counts, and how it closes again."""

from typing import Any

import pytest

from eventbus.errors import DeclarationError, Discard, Reject, RetryLater
from eventbus.middleware.breaker import Breaker, BreakerState, Circuit

CLOSED, OPEN, PROBING = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.PROBING


class DownError(Exception):
    """What a dependency raises that is down."""


class SlowError(DownError):
    """A kind of that."""


def run(circuit: Circuit, *errors: Exception | None, at: float = 0.0) -> list[bool]:
    """Let runs end one after the other; return which of them count."""
    counts: list[bool] = []
    for error in errors:
        ticket = circuit.begin()
        assert ticket is not None, f"refused while {circuit.state}"
        counts.append(circuit.end(ticket, error, at))
    return counts


def opened(breaker: Breaker | None = None) -> Circuit:
    circuit = Circuit(breaker or Breaker(on=(DownError,)))
    run(circuit, DownError())
    assert circuit.state is OPEN
    return circuit


@pytest.mark.parametrize(
    ("breaker", "errors", "state"),
    [
        (Breaker(rate=0.5, min_calls=4), [None, None, KeyError(), KeyError()], OPEN),
        (Breaker(rate=0.5, min_calls=4), [KeyError(), KeyError(), KeyError()], CLOSED),
        (Breaker(rate=0.6, min_calls=4), [None, None, KeyError(), KeyError()], CLOSED),
        (Breaker(rate=1, min_calls=1), [KeyError()], OPEN),
        (Breaker(rate=1, min_calls=2), [None, KeyError(), KeyError()], CLOSED),
        (Breaker(on=(DownError,)), [None, DownError()], OPEN),
        (Breaker(on=(DownError,)), [SlowError()], OPEN),
        (Breaker(on=(DownError,)), [KeyError()], CLOSED),
        (Breaker(rate=None, on=(DownError,), min_calls=1), [KeyError()] * 9, CLOSED),
        (Breaker(rate=1, min_calls=1), [Reject("no"), Discard("old")], CLOSED),
        (Breaker(rate=0.5, min_calls=2), [Reject("no"), KeyError()], OPEN),
        (Breaker(rate=0.5, min_calls=2), [RetryLater(), KeyError()], CLOSED),
    ],
)
def test_what_opens_it(
    breaker: Breaker, errors: list[Exception | None], state: BreakerState
) -> None:
    circuit = Circuit(breaker)

    run(circuit, *errors)

    assert circuit.state is state


def test_only_runs_within_the_window_count() -> None:
    circuit = Circuit(Breaker(rate=0.5, min_calls=4, window=60))

    run(circuit, KeyError(), KeyError(), KeyError(), at=0)
    run(circuit, KeyError(), at=61)

    assert circuit.state is CLOSED


def test_failures_count_for_nearly_the_whole_window() -> None:
    circuit = Circuit(Breaker(rate=0.5, min_calls=4, window=60))

    run(circuit, KeyError(), KeyError(), KeyError(), at=0)
    run(circuit, KeyError(), at=53)

    assert circuit.state is OPEN


def test_the_failure_that_opens_it_is_an_attempt() -> None:
    circuit = Circuit(Breaker(on=(DownError,)))

    assert run(circuit, None, KeyError(), DownError()) == [True, True, True]


def test_nothing_begins_while_it_is_open() -> None:
    assert opened().begin() is None


def test_what_was_in_hand_burns_nothing_by_failing_then() -> None:
    circuit = Circuit(Breaker(on=(DownError,)))
    tickets = [circuit.begin() for _ in range(3)]
    assert None not in tickets

    counts = [
        circuit.end(ticket or 0, error, 0.0)
        for ticket, error in zip(tickets, [DownError(), DownError(), None], strict=True)
    ]

    assert counts == [True, False, True]
    assert circuit.state is OPEN


def test_one_event_probes() -> None:
    circuit = opened()

    circuit.probe()

    assert circuit.state is PROBING
    assert [circuit.begin() is not None for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    ("error", "counts", "state"),
    [
        (None, True, CLOSED),
        (Reject("the event's own fault"), True, CLOSED),
        (DownError(), False, OPEN),
        (KeyError(), False, OPEN),
        (RetryLater(), True, PROBING),
    ],
)
def test_how_a_probe_ends(error: Exception | None, counts: bool, state: BreakerState) -> None:
    circuit = opened()
    circuit.probe()

    assert run(circuit, error) == [counts]
    assert circuit.state is state


def test_after_a_probe_that_said_nothing_another_one_may_begin() -> None:
    circuit = opened()
    circuit.probe()
    ticket = circuit.begin()
    assert ticket is not None

    circuit.let_go(ticket)

    assert circuit.begin() is not None


def test_a_run_from_before_says_nothing_about_a_probe() -> None:
    circuit = Circuit(Breaker(on=(DownError,)))
    late, early = circuit.begin(), circuit.begin()
    assert late is not None
    assert early is not None
    circuit.end(early, DownError(), 0.0)
    circuit.probe()

    counts = circuit.end(late, DownError(), 0.0)
    circuit.let_go(late)

    assert not counts
    assert circuit.state is PROBING


def test_once_closed_it_begins_to_count_anew() -> None:
    circuit = Circuit(Breaker(rate=0.5, min_calls=2))
    run(circuit, KeyError(), KeyError())
    circuit.probe()
    run(circuit, None)

    run(circuit, KeyError())

    assert circuit.state is CLOSED


def test_a_probe_is_only_asked_for_while_it_is_open() -> None:
    circuit = Circuit(Breaker())

    circuit.probe()

    assert circuit.state is CLOSED


def test_every_change_is_told_with_what_opened_it() -> None:
    told: list[tuple[BreakerState, str]] = []
    circuit = Circuit(Breaker(on=(DownError,)))
    circuit.watch(lambda state, problem: told.append((state, problem)))

    run(circuit, SlowError("mail of ada@example.org"))
    circuit.probe()
    run(circuit, KeyError())
    circuit.probe()
    run(circuit, None)

    assert told == [
        (OPEN, "SlowError"),
        (PROBING, ""),
        (OPEN, "KeyError"),
        (PROBING, ""),
        (CLOSED, ""),
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0},
        {"rate": 1.1},
        {"rate": None},
        {"min_calls": 0},
        {"min_calls": 2.5},
        {"window": 0},
        {"window": "soon"},
        {"reset_after": 0},
        {"reset_after": -1},
        {"on": ("DownError",)},
        {"on": (BaseException,)},
    ],
    ids=str,
)
def test_a_breaker_that_makes_no_sense_is_refused(options: Any) -> None:
    with pytest.raises(DeclarationError, match=r"Breaker\("):
        Breaker(**options)


def test_durations_may_be_written_as_words() -> None:
    breaker = Breaker(window="5m", reset_after="90s")

    assert (breaker.span, breaker.pause) == (300.0, 90.0)
