"""The state of streams, durables and breakers, as metrics and as log lines."""

import logging

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventbus.drivers.room import DurableState, Fill
from eventbus.errors import DriverError
from eventbus.middleware.breaker import BreakerState
from eventbus.telemetry.conditions import (
    BreakerChanged,
    DurableMeasured,
    DurablesChecked,
    JanitorFailed,
    LaterFilling,
    RoomMade,
    RoomShort,
    StreamMeasured,
    Unattended,
    UnreadAging,
)
from eventbus.telemetry.logs import LogObserver
from eventbus.telemetry.metrics import Metrics
from eventbus.telemetry.signals import Happened

STATE = DurableState(
    "mail__send", (), 40, 30, pending=7, unsettled=3, redelivered=2, waiting=1, paused=True
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda _: True, registry=CollectorRegistry())


def values(metrics: Metrics) -> dict[str, float]:
    """Return the value of every series by its name."""
    text = metrics.exposition()[0].decode()
    return {sample.name: sample.value for family in parse_text(text) for sample in family.samples}


def test_a_listeners_durable_is_shown_as_it_was_measured_last(metrics: Metrics) -> None:
    metrics(DurableMeasured("mail", "send", STATE, 12.5))

    shown = values(metrics)
    assert shown["eventbus_consumer_pending"] == 7
    assert shown["eventbus_consumer_ack_pending"] == 3
    assert shown["eventbus_consumer_redelivered"] == 2
    assert shown["eventbus_paused"] == 1
    assert shown["eventbus_oldest_unread_seconds"] == 12.5


def test_a_listener_without_unread_events_has_none_that_is_old(metrics: Metrics) -> None:
    metrics(DurableMeasured("mail", "send", STATE, 12.5))
    metrics(DurableMeasured("mail", "send", STATE, None))

    assert values(metrics)["eventbus_oldest_unread_seconds"] == 0


def test_both_streams_are_shown_with_what_they_may_hold(metrics: Metrics) -> None:
    metrics(StreamMeasured(Fill("EVENTS", 3, 400, 500, 9)))
    metrics(StreamMeasured(Fill("EVENTS_LATER", 1, 40, 50, 2), later=True))

    shown = values(metrics)
    assert (shown["eventbus_stream_bytes"], shown["eventbus_stream_limit_bytes"]) == (400, 500)
    assert (shown["eventbus_later_bytes"], shown["eventbus_later_limit_bytes"]) == (40, 50)


def test_alarms_of_durables_end_with_what_caused_them(metrics: Metrics) -> None:
    metrics(DurablesChecked(("mail__send", "audit__trail"), ("mail__send",)))
    before = values(metrics)
    metrics(DurablesChecked((), ()))
    after = values(metrics)

    names = ("eventbus_unattended_durables", "eventbus_aging_durables")
    assert [before[name] for name in names] == [2, 1]
    assert [after[name] for name in names] == [0, 0]


def test_purged_events_are_counted(metrics: Metrics) -> None:
    metrics(RoomMade("EVENTS", 40))
    metrics(RoomMade("EVENTS", 2))

    assert values(metrics)["eventbus_purged_total"] == 42


@pytest.mark.parametrize(
    ("state", "shown"),
    [(BreakerState.CLOSED, 0), (BreakerState.PROBING, 1), (BreakerState.OPEN, 2)],
)
def test_a_breaker_is_shown_as_a_number(metrics: Metrics, state: BreakerState, shown: int) -> None:
    metrics(BreakerChanged("mail", "send", state))

    assert values(metrics)["eventbus_breaker_state"] == shown


@pytest.mark.parametrize(
    ("happened", "level", "line"),
    [
        (
            BreakerChanged("mail", "send", BreakerState.OPEN, "ConnectionError"),
            "WARNING",
            "breaker.changed service='mail' listener='send' state='open' "
            "problem='ConnectionError'",
        ),
        (
            BreakerChanged("mail", "send", BreakerState.CLOSED),
            "INFO",
            "breaker.changed service='mail' listener='send' state='closed'",
        ),
        (RoomMade("EVENTS", 40), "INFO", "room.made service='mail' stream='EVENTS' events=40"),
        (
            RoomShort("EVENTS", 4, 5, ("mail__send",)),
            "ERROR",
            "room.short service='mail' stream='EVENTS' size=4 limit=5 held_by=['mail__send']",
        ),
        (
            LaterFilling("EVENTS_LATER", 4, 5),
            "ERROR",
            "later.filling service='mail' stream='EVENTS_LATER' size=4 limit=5",
        ),
        (
            Unattended("audit__trail", 7),
            "WARNING",
            "durable.unattended service='mail' durable='audit__trail' unread=7",
        ),
        (
            UnreadAging("audit__trail", 7, 500_000.4, 604_800),
            "ERROR",
            "durable.aging service='mail' durable='audit__trail' unread=7 age_s=500000 "
            "max_age_s=604800",
        ),
        (
            JanitorFailed(DriverError("no leader")),
            "WARNING",
            "janitor.failed service='mail' error_type='driver' error_message='no leader'",
        ),
    ],
    ids=lambda one: type(one).__name__ if not isinstance(one, str) else None,
)
def test_what_somebody_should_know_is_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture, happened: Happened, level: str, line: str
) -> None:
    caplog.set_level(logging.DEBUG, logger="eventbus")

    LogObserver("mail")(happened)

    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [(level, line)]


def test_measures_are_no_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="eventbus")
    observe = LogObserver("mail")

    observe(DurableMeasured("mail", "send", STATE, 12.5))
    observe(StreamMeasured(Fill("EVENTS", 3, 400, 500, 9)))
    observe(DurablesChecked(("mail__send",), ()))

    assert caplog.records == []
