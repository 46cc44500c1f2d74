"""Metrics are read as Prometheus reads them: from the exposition."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventbus.delivery import Outcome, Reason
from eventbus.drivers.base import Connected, ConsumerRecovered, DelayedLost, Disconnected
from eventbus.drivers.room import DurableState
from eventbus.errors import EmitUnknown, NoStreamError, NotConnectedError, SettleError
from eventbus.middleware.breaker import BreakerState
from eventbus.telemetry.conditions import BreakerChanged, DurableMeasured
from eventbus.telemetry.metrics import NAMES, OPENMETRICS, Metrics
from eventbus.telemetry.outbox import Quarantined, Relayed, RelayRefused
from eventbus.telemetry.signals import EmitFailed, Emitted, Received, Returned, Settled, Stuck

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LABELS = {"event": "user.created", "listener": "send_welcome"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"user.created"}.__contains__, registry=CollectorRegistry())


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return a series' value as it is exposed; None where there is no such series."""
    text = metrics.exposition()[0].decode()
    found = [
        sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found[0] if found else None


def exemplars(metrics: Metrics) -> dict[str, dict[str, str]]:
    text = metrics.exposition(OPENMETRICS)[0].decode()
    return {
        sample.name: sample.exemplar.labels
        for family in parse_openmetrics(text)
        for sample in family.samples
        if sample.exemplar
    }


def received(name: str = "user.created", *, redelivered: bool = False) -> Received:
    return Received(name, "notification", "send_welcome", redelivered)


def settled(outcome: Outcome, **changes: object) -> Settled:
    given: dict[str, Any] = {
        "name": "user.created",
        "id": "id-1",
        "service": "notification",
        "listener": "send_welcome",
        "outcome": outcome,
        "attempt": 1,
        "attempts": 5,
        "duration": 0.0125,
        "end_to_end": 0.5,
        "correlation_id": "c-1",
    }
    return Settled(**{**given, **changes})


def emitted(*, duplicate: bool = False) -> Emitted:
    return Emitted("user.created", "id-1", "jetstream", "c-1", 0.003, 31, duplicate)


def test_each_outcome_is_counted(metrics):
    for outcome in Outcome:
        metrics(received())
        metrics(settled(outcome))

    counted = {
        outcome: value(metrics, "eventbus_processed_total", **LABELS, outcome=outcome)
        for outcome in ("ok", "retry", "park", "dead", "dropped", "duplicate", "raised")
    }
    assert counted == dict.fromkeys(counted, 1)
    assert value(metrics, "eventbus_received_total", **LABELS) == 7


def test_every_outcome_starts_at_zero_so_that_a_rate_sees_the_first(metrics):
    metrics(received())

    assert value(metrics, "eventbus_processed_total", **LABELS, outcome="dead") == 0
    assert value(metrics, "eventbus_dead_letters_total", **LABELS, reason="exception") == 0


def test_redeliveries_are_counted_beside_what_was_received(metrics):
    metrics(received())
    metrics(received(redelivered=True))

    assert value(metrics, "eventbus_received_total", **LABELS) == 2
    assert value(metrics, "eventbus_redeliveries_total", **LABELS) == 1


def test_in_flight_is_what_came_in_and_has_not_ended_in_any_way(metrics):
    for _ in range(5):
        metrics(received())
    metrics(settled(Outcome.OK))
    metrics(Returned("user.created", "notification", "send_welcome"))
    metrics(Stuck("user.created", "notification", "send_welcome", SettleError("no answer")))

    assert value(metrics, "eventbus_in_flight", listener="send_welcome") == 2
    assert value(metrics, "eventbus_returned_total", listener="send_welcome") == 1
    assert value(metrics, "eventbus_stuck_total", listener="send_welcome") == 1


def test_durations_are_in_seconds(metrics):
    metrics(settled(Outcome.OK, duration=0.0125, end_to_end=90.0))

    assert value(metrics, "eventbus_listener_duration_seconds_sum", **LABELS) == 0.0125
    assert value(metrics, "eventbus_listener_duration_seconds_bucket", **LABELS, le="0.01") == 0
    assert value(metrics, "eventbus_listener_duration_seconds_bucket", **LABELS, le="0.02") == 1
    assert value(metrics, "eventbus_end_to_end_seconds_bucket", **LABELS, le="60.0") == 0
    assert value(metrics, "eventbus_end_to_end_seconds_bucket", **LABELS, le="300.0") == 1


def test_a_listener_that_did_not_run_has_no_duration(metrics):
    metrics(settled(Outcome.DEAD, duration=0.0, reason=Reason.INVALID))

    assert value(metrics, "eventbus_listener_duration_seconds_count", **LABELS) == 0


def test_end_to_end_measures_what_was_handled_and_is_never_negative(metrics):
    metrics(settled(Outcome.RETRY, end_to_end=1.0))
    metrics(settled(Outcome.DEAD, end_to_end=3600.0))
    metrics(settled(Outcome.OK, end_to_end=None))
    metrics(settled(Outcome.OK, end_to_end=-0.2))

    assert value(metrics, "eventbus_end_to_end_seconds_count", **LABELS) == 1
    assert value(metrics, "eventbus_end_to_end_seconds_sum", **LABELS) == 0


def test_attempts_are_counted_once_an_event_ends(metrics):
    metrics(settled(Outcome.RETRY, attempt=1))
    metrics(settled(Outcome.RETRY, attempt=2))
    metrics(settled(Outcome.OK, attempt=3))

    assert value(metrics, "eventbus_attempts_count", listener="send_welcome") == 1
    assert value(metrics, "eventbus_attempts_sum", listener="send_welcome") == 3


def test_dead_letters_are_counted_by_reason(metrics):
    metrics(settled(Outcome.DEAD, reason=Reason.TIMEOUT))

    assert value(metrics, "eventbus_dead_letters_total", **LABELS, reason="timeout") == 1
    assert value(metrics, "eventbus_dead_letters_total", **LABELS, reason="invalid") == 0


def test_emits_are_counted_by_what_is_known_of_them(metrics):
    unknown = EmitUnknown(name="user.created", id="id-1", after=15.0, tries=8)
    metrics(emitted())
    metrics(emitted(duplicate=True))
    for error in (NoStreamError("none"), unknown):
        metrics(EmitFailed("user.created", "id-1", "jetstream", "c-1", 0.1, error))

    counted = [
        value(
            metrics,
            "eventbus_emitted_total",
            event="user.created",
            driver="jetstream",
            outcome=outcome,
        )
        for outcome in ("ok", "duplicate", "failed", "unknown")
    ]
    assert counted == [1, 1, 1, 1]
    assert (
        value(
            metrics,
            "eventbus_emit_duration_seconds_count",
            event="user.created",
            driver="jetstream",
        )
        == 2
    )


def test_names_that_nobody_declared_share_one_label(metrics):
    for number in range(100):
        metrics(received(f"made.up{number}"))
        metrics(settled(Outcome.DEAD, name=f"made.up{number}", reason=Reason.UNKNOWN_EVENT))

    text = metrics.exposition()[0].decode()
    assert "made" not in text
    shared = {"event": "unknown", "listener": "send_welcome"}
    assert value(metrics, "eventbus_received_total", **shared) == 100
    assert value(metrics, "eventbus_dead_letters_total", **shared, reason="unknown_event") == 100


def test_a_name_that_is_declared_later_is_counted_under_its_name_from_then_on():
    known: set[str] = set()
    metrics = Metrics(known.__contains__, registry=CollectorRegistry())
    metrics(received())

    known.add("user.created")
    metrics(received())

    assert value(metrics, "eventbus_received_total", event="unknown", listener="send_welcome") == 1
    assert value(metrics, "eventbus_received_total", **LABELS) == 1


def test_the_connection_is_a_gauge_and_reconnects_a_counter(metrics):
    metrics(Connected("nats-1", "2.15.1", again=False))
    metrics(Disconnected("read loop ended"))
    lost = value(metrics, "eventbus_connected")
    metrics(Connected("nats-2", "2.15.1", again=True))

    assert lost == 0
    assert value(metrics, "eventbus_connected") == 1
    assert value(metrics, "eventbus_reconnects_total") == 1


def test_a_pull_loop_that_came_back_is_counted_by_listener(metrics):
    metrics(ConsumerRecovered("notification__send_welcome", "no heartbeat"))

    assert value(metrics, "eventbus_consumer_recovered_total", listener="send_welcome") == 1


def test_gauges_are_set_from_outside(metrics):
    metrics.set_consumer("send_welcome", pending=12, ack_pending=3, redelivered=1)
    metrics.set_loop_lag(0.25)

    named = {"listener": "send_welcome"}
    assert value(metrics, "eventbus_consumer_pending", **named) == 12
    assert value(metrics, "eventbus_consumer_ack_pending", **named) == 3
    assert value(metrics, "eventbus_consumer_redelivered", **named) == 1
    assert value(metrics, "eventbus_loop_lag_seconds") == 0.25


def test_histograms_lead_to_a_trace_that_was_recorded(metrics):
    metrics(settled(Outcome.OK, trace=f"00-{TRACE}-00f067aa0ba902b7-01"))

    assert exemplars(metrics) == {
        "eventbus_listener_duration_seconds_bucket": {"trace_id": TRACE},
        "eventbus_end_to_end_seconds_bucket": {"trace_id": TRACE},
    }


@pytest.mark.parametrize("trace", ["", f"00-{TRACE}-00f067aa0ba902b7-01"])
@pytest.mark.parametrize("name", ["user.created", "nobody.knows"])
@pytest.mark.parametrize(("duration", "end_to_end"), [(0.0125, 0.5), (0.0, -3.0)])
def test_the_usual_is_counted_as_its_records_are(
    name: str, trace: str, duration: float, end_to_end: float
):
    both = [Metrics({"user.created"}.__contains__, registry=CollectorRegistry()) for _ in range(2)]

    both[0](received(name))
    changes = {"name": name, "duration": duration, "end_to_end": end_to_end, "trace": trace}
    both[0](settled(Outcome.OK, **changes))
    counter = both[1].counter(name, "send_welcome")
    counter.received()
    counter.handled(duration, end_to_end, trace)

    first, second = (
        [
            line
            for line in one.exposition()[0].decode().splitlines()
            if "_created" not in line.partition(" ")[0].partition("{")[0]
        ]
        for one in both
    )
    assert first == second
    assert exemplars(both[0]) == exemplars(both[1])


def test_the_time_of_an_emit_leads_to_its_trace(metrics):
    metrics(replace(emitted(), trace=f"00-{TRACE}-00f067aa0ba902b7-01"))

    assert exemplars(metrics) == {"eventbus_emit_duration_seconds_bucket": {"trace_id": TRACE}}


@pytest.mark.parametrize(
    "traceparent",
    ["", "garbage", "00-short-00f067aa0ba902b7-01", f"00-{TRACE}-00f067aa0ba902b7-00"],
)
def test_a_trace_that_was_not_recorded_is_no_exemplar(metrics, traceparent: str):
    metrics(settled(Outcome.OK, trace=traceparent))

    assert exemplars(metrics) == {}


def test_openmetrics_is_given_to_who_asks_for_it(metrics):
    plain = metrics.exposition("text/plain")
    asked = metrics.exposition("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")

    assert plain[1].startswith("text/plain")
    assert asked[1].startswith("application/openmetrics-text")
    assert asked[0].endswith(b"# EOF\n")


def test_the_table_names_what_is_exposed_and_nothing_else():
    metrics = Metrics({"user.created"}.__contains__)
    metrics(received())
    metrics(settled(Outcome.OK))
    metrics(emitted())
    metrics(ConsumerRecovered("notification__send_welcome", "no heartbeat"))
    metrics(BreakerChanged("notification", "send_welcome", BreakerState.CLOSED))
    state = DurableState("notification__send_welcome", (), 0, 0, 0, 0)
    metrics(DurableMeasured("notification", "send_welcome", state, None))
    metrics(Relayed("user.created", "a", 0.1))
    metrics(DelayedLost("user.created", "a", datetime(2026, 1, 1, tzinfo=UTC), "no service"))
    metrics(RelayRefused("user.created", "b", NotConnectedError("away"), 0))
    metrics(Quarantined("user.created", "c", NotConnectedError("away")))

    text = metrics.exposition()[0].decode()
    exposed = {
        sample.name
        for family in parse_text(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    assert exposed == NAMES


def test_labels_are_few_valued(metrics):
    metrics(received())
    metrics(settled(Outcome.OK, subject="events.user.created", stream="EVENTS", sequence=7))
    metrics(emitted())

    names = set(re.findall(r'[{,]([a-z_]+)="', metrics.exposition()[0].decode()))
    assert names <= {"event", "listener", "outcome", "reason", "driver", "le", "version", "python"}


def test_a_redriven_event_is_counted_by_how_it_ends(metrics):
    for outcome, redrive in ((Outcome.OK, 1), (Outcome.RETRY, 1), (Outcome.DEAD, 2)):
        metrics(received())
        metrics(settled(outcome, redrive=redrive))
    metrics(received())
    metrics(settled(Outcome.OK))

    counts = [
        value(metrics, "eventbus_redriven_total", listener="send_welcome", outcome=one.value)
        for one in (Outcome.OK, Outcome.DEAD, Outcome.DROPPED)
    ]
    assert counts == [1, 1, 0]


_WORKER = """
import sys
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from eventbus.delivery import Outcome
from eventbus.telemetry.metrics import Metrics
from eventbus.telemetry.signals import Received, Settled

metrics = Metrics(lambda _: True)
for _ in range(3):
    metrics(Received("user.created", "mail", "send", redelivered=False))
metrics(Settled("user.created", "1", "mail", "send", Outcome.OK, 2, 5, 0.25, 0.5, "c"))
own = metrics.exposition()[0].decode()
if sys.argv[1:] == ["read"]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    print(generate_latest(registry).decode())
print(own)
"""


def test_processes_that_share_files_are_summed_up_by_the_application(tmp_path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", _WORKER]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)

    done = subprocess.run(
        [*command, "read"], env=environment, check=True, capture_output=True, text=True, timeout=60
    )

    received = 'eventbus_received_total{event="user.created",listener="send"}'
    taken = 'eventbus_listener_duration_seconds_sum{event="user.created",listener="send"}'
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith(received)] == [
        f"{received} 6.0",
        f"{received} 3.0",
    ]
    assert [line for line in lines if line.startswith(taken)] == [f"{taken} 0.5", f"{taken} 0.25"]
    in_flight = [line for line in lines if "eventbus_in_flight{" in line and "pid=" in line]
    assert [line.rsplit(maxsplit=1)[1] for line in in_flight] == ["2.0", "2.0"]
