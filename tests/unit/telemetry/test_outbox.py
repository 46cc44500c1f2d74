"""What happens to an outbox, as metrics and as log lines."""

import logging

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as parse_text

from eventbus.errors import NotConnectedError, StoreError
from eventbus.telemetry.logs import LogObserver
from eventbus.telemetry.metrics import Metrics
from eventbus.telemetry.outbox import (
    OutboxMeasured,
    Quarantined,
    Relayed,
    RelayFailed,
    RelayRefused,
)

ERROR = NotConnectedError("no connection")


def test_an_outbox_is_counted() -> None:
    metrics = Metrics(lambda _: False, registry=CollectorRegistry())

    metrics(OutboxMeasured(pending=7, oldest=2.5, quarantined=1))
    metrics(Relayed("user.created", "a", 0.25))
    metrics(Relayed("user.created", "b", 0.25, duplicate=True))
    metrics(RelayRefused("user.created", "c", ERROR, 1))
    metrics(Quarantined("user.created", "c", ERROR))

    text = metrics.exposition()[0].decode()
    samples = [one for family in parse_text(text) for one in family.samples]
    values = {
        one.name: one.value for one in samples if "outbox" in one.name or "relay" in one.name
    }
    assert values["eventbus_outbox_pending"] == 7
    assert values["eventbus_outbox_oldest_seconds"] == 2.5
    assert values["eventbus_outbox_quarantined"] == 1
    assert values["eventbus_relayed_total"] == 2
    assert values["eventbus_outbox_wait_seconds_sum"] == 0.5
    assert values["eventbus_relay_refused_total"] == 1
    assert values["eventbus_outbox_failed_total"] == 1
    assert {one.labels["event"] for one in samples if one.name == "eventbus_relayed_total"} == {
        "user.created"
    }


def test_what_cannot_go_is_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    observer = LogObserver("bank", logger=logging.getLogger("outbox"))

    with caplog.at_level(logging.DEBUG, logger="outbox"):
        observer(Relayed("user.created", "a", 0.25))
        observer(RelayRefused("user.created", "c", ERROR, 1))
        observer(Quarantined("user.created", "c", ERROR))
        observer(RelayFailed(StoreError("away")))

    lines = [(one.levelname, str(one.msg).split()[0]) for one in caplog.records]
    assert lines == [
        ("DEBUG", "outbox.relayed"),
        ("WARNING", "outbox.refused"),
        ("ERROR", "outbox.quarantined"),
        ("WARNING", "relay.failed"),
    ]
    assert vars(caplog.records[2])["error_type"] == "driver.not_connected"
