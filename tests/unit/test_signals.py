"""Observers: told in order, unable to harm."""

import logging
from datetime import datetime

import pytest
from typing_extensions import override

from eventbus.clock import SystemClock
from eventbus.telemetry.metrics import Metrics
from eventbus.telemetry.signals import (
    Happened,
    Observers,
    Received,
    Returned,
    count_handled,
    is_watched,
)

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HAPPENED = Returned("user.created", "mail", "send")


def test_every_observer_is_told_in_the_order_they_came() -> None:
    told: list[tuple[str, Happened]] = []
    observers = Observers([lambda one: told.append(("first", one))])
    observers.add(lambda one: told.append(("second", one)))

    observers(HAPPENED)

    assert told == [("first", HAPPENED), ("second", HAPPENED)]


def test_an_observer_that_raises_is_logged_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: Happened) -> None:
        raise RuntimeError("no")

    told: list[Happened] = []
    with caplog.at_level(logging.ERROR):
        Observers([broken, told.append])(HAPPENED)

    assert told == [HAPPENED]
    assert "failed on Returned" in caplog.text
    assert "RuntimeError: no" in caplog.text


def test_an_observer_that_was_removed_is_told_no_more() -> None:
    told: list[Happened] = []
    observers = Observers([told.append])

    observers.remove(told.append)
    observers(HAPPENED)

    assert told == []


def test_an_observer_that_leaves_while_it_is_told_costs_the_next_one_nothing() -> None:
    told: list[str] = []

    def leaving(_: Happened) -> None:
        told.append("leaving")
        observers.remove(leaving)

    observers = Observers([leaving, lambda _: told.append("staying")])

    observers(HAPPENED)
    observers(HAPPENED)

    assert told == ["leaving", "staying", "staying"]


class _Taking:
    """An observer that wants records of one kind."""

    takes = (Received,)

    def __init__(self) -> None:
        self.told: list[Happened] = []

    def __call__(self, happened: Happened) -> None:
        self.told.append(happened)


def test_an_observer_that_says_what_it_takes_is_told_of_nothing_else() -> None:
    taking, received = _Taking(), Received("user.created", "mail", "send", redelivered=False)
    observers = Observers([taking])

    observers(HAPPENED)
    observers(received)

    assert taking.told == [received]


def test_a_record_that_nobody_takes_need_not_be_made() -> None:
    observers = Observers([_Taking()])
    before = is_watched(observers, Returned)

    observers.add(lambda _: None)

    assert is_watched(observers, Received)
    assert not before
    assert is_watched(observers, Returned)
    assert not is_watched(Observers(), Received)


def test_who_counts_the_usual_gets_no_records_of_it_and_all_others_do() -> None:
    told: list[Happened] = []
    taking = _Taking()
    observers = Observers([Metrics(lambda _: True), told.append, taking])

    found = observers.audience("user.created", "send")

    assert len(found.counters) == 1
    assert found.received == (told.append, taking)
    assert found.started == found.settled == (told.append,)


def test_a_counter_that_raises_is_logged_and_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(SystemClock):
        is_broken = False

        @override
        def now(self) -> datetime:
            if self.is_broken:
                raise RuntimeError("no")
            return super().now()

    clock = Broken()
    audience = Observers([Metrics(lambda _: True, clock=clock)]).audience("user.created", "send")
    clock.is_broken = True

    with caplog.at_level(logging.ERROR):
        count_handled(audience, 0.1, 0.2, TRACE)

    assert "RuntimeError: no" in caplog.text


def test_who_can_not_make_a_counter_is_told_like_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics(lambda _: 1 / 0 > 0)

    with caplog.at_level(logging.ERROR):
        found = Observers([metrics]).audience("user.created", "send")

    assert found.counters == ()
    assert len(found.received) == len(found.settled) == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_record_can_not_be_changed_by_who_is_told() -> None:
    with pytest.raises(AttributeError):
        HAPPENED.name = "other"  # type: ignore[misc]
