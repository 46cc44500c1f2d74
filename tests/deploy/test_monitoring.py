"""Dashboard and alerts: what they ask for exists, and the alerts fire when they should."""

import json
import runpy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import promql_parser
import yaml

from eventbus.telemetry.metrics import NAMES

DEPLOY = Path(__file__).parents[2] / "deploy"
BUILD = DEPLOY / "grafana" / "build.py"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "eventbus.json"
PROMETHEUS = DEPLOY / "prometheus"

# What prometheus-nats-exporter 0.20.1 offers, of what is used here (its collector/jsz.go), and
# Prometheus itself.
OF_OTHERS = {
    "jetstream_consumer_num_ack_pending",
    "jetstream_consumer_num_pending",
    "jetstream_consumer_num_waiting",
    "jetstream_server_jetstream_disabled",
    "jetstream_stream_total_bytes",
    "jetstream_stream_total_messages",
    "up",
}
OURS = {"event", "listener", "outcome", "reason", "driver", "le", "service", "job"}
THEIRS = {"stream_name", "consumer_name", "is_consumer_leader", "job"}

Table: TypeAlias = dict[str, Any]


def panels() -> list[Table]:
    listed: list[Table] = json.loads(DASHBOARD.read_text())["panels"]
    return listed


def alerts() -> Iterator[Table]:
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]:
        yield from group["rules"]


def expressions() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            asked = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
            metric, label = asked.rsplit(", ", 1)
            yield f"${variable['name']}", f"count by ({label}) ({metric})"
    for alert in alerts():
        yield alert["alert"], alert["expr"]


def parsed(expression: str) -> list[promql_parser.Expr]:
    nodes: list[promql_parser.Expr] = []
    for name in ("$__rate_interval", "$__range"):
        expression = expression.replace(name, "5m")
    promql_parser.walk(promql_parser.parse(expression), nodes.append)
    return nodes


def metrics(expression: str) -> set[str]:
    nodes = parsed(expression)
    return {str(node.name) for node in nodes if isinstance(node, promql_parser.VectorSelector)}


def labels(expression: str) -> set[str]:
    found: set[str] = set()
    for node in parsed(expression):
        if isinstance(node, promql_parser.VectorSelector):
            found.update(one.name for one in node.matchers.matchers)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)
    return found


def test_the_dashboard_is_what_its_script_writes() -> None:
    rendered = runpy.run_path(str(BUILD))["rendered"]

    assert DASHBOARD.read_text() == rendered()


def test_every_metric_that_is_asked_for_exists() -> None:
    unknown = {where: metrics(asked) - NAMES - OF_OTHERS for where, asked in expressions()}

    assert {where: names for where, names in unknown.items() if names} == {}
    assert all(metrics(asked) for _, asked in expressions())


def test_every_label_that_is_asked_for_exists() -> None:
    unknown = {
        where: labels(asked) - (OURS if metrics(asked) <= NAMES | {"up"} else THEIRS)
        for where, asked in expressions()
    }

    assert {where: names for where, names in unknown.items() if names} == {}


def test_the_dashboard_shows_what_the_bus_promises_to_show() -> None:
    shown = set().union(*(metrics(one["expr"]) for panel in panels() for one in panel["targets"]))

    assert shown >= {
        "eventbus_emitted_total",
        "eventbus_processed_total",
        "eventbus_listener_duration_seconds_bucket",
        "eventbus_end_to_end_seconds_bucket",
        "eventbus_in_flight",
        "eventbus_dead_letters_total",
        "jetstream_consumer_num_pending",
        "eventbus_connected",
        "eventbus_loop_lag_seconds",
        "eventbus_reconnects_total",
    }


def test_curves_of_durations_link_to_their_traces() -> None:
    linked = {
        target["exemplar"]
        for panel in panels()
        for target in panel["targets"]
        if "histogram_quantile" in target["expr"]
    }
    sources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/datasources.yaml").read_text()
    )["datasources"]
    uids = {source["uid"] for source in sources}
    links = sources[0]["jsonData"]["exemplarTraceIdDestinations"]

    assert linked == {True}
    assert {link["datasourceUid"] for link in links} <= uids
    assert [link["name"] for link in links] == ["trace_id"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    places = [(panel["gridPos"], panel["id"]) for panel in panels()]
    cells = [
        (place["x"] + column, place["y"] + row)
        for place, _ in places
        for column in range(place["w"])
        for row in range(place["h"])
    ]

    assert len({number for _, number in places}) == len(places)
    assert len(set(cells)) == len(cells)
    assert all(one["y"] <= other["y"] for (one, _), (other, _) in pairwise(places))


def test_every_alert_is_seen_to_fire() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules.test.yml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }

    assert {alert["alert"] for alert in alerts()} == fired
