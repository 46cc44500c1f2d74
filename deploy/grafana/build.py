"""Writes the dashboard: run it after a change here; the JSON beside it is what Grafana loads."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ("dashboard", "rendered")

Json: TypeAlias = dict[str, Any]

OUTPUT = Path(__file__).with_name("dashboards") / "eventbus.json"

WIDTH = 24
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
COLORS = {"ok": "green", "retry": "yellow", "park": "orange", "dead": "red", "failed": "red"}
PER_SECOND = "suffix:/s"

SERVICE = 'service=~"$service"'
EVENT = f'{SERVICE}, event=~"$event"'
LISTENER = f'{SERVICE}, listener=~"$listener"'
HANDLED = f'{LISTENER}, event=~"$event"'
# Every node of the cluster reports each consumer; the leader's figure is the one that counts.
PENDING = 'max by (consumer_name) (jetstream_consumer_num_pending{is_consumer_leader="true"})'
DEAD = 'max by (stream_name) (jetstream_stream_total_messages{stream_name=~".+_DLQ"})'


def rate(metric: str, labels: str, by: str) -> str:
    """Return how often per second a counter rises, for each value of the labels ``by``."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def increase(metric: str, labels: str) -> str:
    """Return by how much a counter rose in the time on display."""
    return f"sum(increase({metric}{{{labels}}}[$__range]))"


def query(expression: str, legend: str = "__auto", *, exemplars: bool = False) -> Json:
    """Return one query; exemplars are traces, shown as points that link to Jaeger."""
    return {
        "datasource": SOURCE,
        "expr": expression,
        "legendFormat": legend,
        "exemplar": exemplars,
    }


def quantiles(metric: str, labels: str, by: str) -> list[Json]:
    """Return the queries for the median and the 99th percentile of a histogram."""
    buckets = rate(f"{metric}_bucket", labels, f"le, {by}")
    return [
        query(f"histogram_quantile({share}, {buckets})", f"{name} {{{{{by}}}}}", exemplars=True)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]


def stat(title: str, expression: str, unit: str = "short", red: float | None = None) -> Json:
    """Return a panel with one number, red from a value on."""
    steps: list[Json] = [{"color": "green", "value": None}]
    if red is not None:
        steps.append({"color": "red", "value": red})
    return {
        "type": "stat",
        "title": title,
        "datasource": SOURCE,
        "targets": [query(expression)],
        "gridPos": {"w": 4, "h": 4},
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"colorMode": "value", "reduceOptions": {"calcs": ["lastNotNull"]}},
    }


def graph(title: str, queries: list[Json], unit: str = "short", description: str = "") -> Json:
    """Return a panel with curves over time."""
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": queries,
        "gridPos": {"w": 8, "h": 8},
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10, "lineWidth": 1}},
            "overrides": [_colored(name, color) for name, color in COLORS.items()],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _colored(series: str, color: str) -> Json:
    return {
        "matcher": {"id": "byName", "options": series},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}],
    }


def heading(title: str) -> Json:
    """Return the line above a group of panels."""
    size = {"w": WIDTH, "h": 1}
    return {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": size}


OVERVIEW = [
    stat("Emitted", f"sum({rate('eventbus_emitted_total', EVENT, 'event')})", PER_SECOND),
    stat(
        "Emits that raised",
        increase("eventbus_emitted_total", f'{EVENT}, outcome=~"failed|unknown"'),
        red=1,
    ),
    stat("Dead letters", increase("eventbus_dead_letters_total", HANDLED), red=1),
    stat("In the dead letter queue", f"sum({DEAD})", red=1),
    stat("Waiting on the server", f"sum({PENDING})", red=1000),
    stat("Not connected", f"count(eventbus_connected{{{SERVICE}}} == 0) or vector(0)", red=1),
]

EMITTING = [
    graph(
        "Emitted, by event", [query(rate("eventbus_emitted_total", EVENT, "event"))], PER_SECOND
    ),
    graph(
        "Emits that weren't new",
        [query(rate("eventbus_emitted_total", f'{EVENT}, outcome!="ok"', "outcome"))],
        PER_SECOND,
        "duplicate: stored before. failed: not stored. unknown: no answer, may be stored.",
    ),
    graph(
        "From emit to the receipt",
        quantiles("eventbus_emit_duration_seconds", EVENT, "event"),
        "s",
    ),
]

LISTENING = [
    graph(
        "Handled, by outcome",
        [query(rate("eventbus_processed_total", HANDLED, "outcome"))],
        PER_SECOND,
    ),
    graph(
        "One run of a listener",
        quantiles("eventbus_listener_duration_seconds", HANDLED, "listener"),
        "s",
    ),
    graph(
        "From emit to handled",
        quantiles("eventbus_end_to_end_seconds", HANDLED, "listener"),
        "s",
    ),
    graph("In flight", [query(f"sum by (service, listener) (eventbus_in_flight{{{LISTENER}}})")]),
    graph(
        "Waiting on the server",
        [query(PENDING)],
        description="As the server counts, so listeners of a service that is down are here too.",
    ),
    graph(
        "Dead letters, by reason",
        [query(rate("eventbus_dead_letters_total", HANDLED, "reason"))],
        PER_SECOND,
    ),
]

PROCESSES = [
    graph("Connected", [query(f"sum by (service) (eventbus_connected{{{SERVICE}}})")]),
    graph(
        "Reconnects", [query(rate("eventbus_reconnects_total", SERVICE, "service"))], PER_SECOND
    ),
    graph(
        "Event loop lag",
        [query(f"max by (service) (eventbus_loop_lag_seconds{{{SERVICE}}})")],
        "s",
        "The longest delay of the last 15 s; from half a second on, something blocks the loop.",
    ),
    graph(
        "CPU",
        [query(rate("process_cpu_seconds_total", SERVICE, "service"))],
        "percentunit",
    ),
    graph(
        "Memory",
        [query(f"sum by (service) (process_resident_memory_bytes{{{SERVICE}}})")],
        "bytes",
    ),
    graph("Stream size", [query("max by (stream_name) (jetstream_stream_total_bytes)")], "bytes"),
]


def variable(name: str, label: str, metric: str) -> Json:
    """Return a choice above the dashboard: any of the values that a label has."""
    values = f"label_values({metric}, {name})"
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": SOURCE,
        "query": {"query": values, "refId": name},
        "definition": values,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",  # not .*, which takes what has no such label too
        "current": {"text": ["All"], "value": ["$__all"]},
    }


VARIABLES = [
    {"type": "datasource", "name": "datasource", "label": "Source", "query": "prometheus"},
    variable("service", "Service", "eventbus_build_info"),
    variable("event", "Event", "eventbus_emitted_total"),
    variable("listener", "Listener", "eventbus_received_total"),
]


def placed(panels: Iterable[Json]) -> list[Json]:
    """Return the panels with numbers and places, from left to right, line by line."""
    result: list[Json] = []
    x = y = height = 0
    for number, panel in enumerate(panels, start=1):
        size = panel["gridPos"]
        if x + size["w"] > WIDTH:
            x, y = 0, y + height
        position = {"x": x, "y": y, **size}
        x, height = x + size["w"], size["h"]
        targets = [
            {**one, "refId": letter}
            for letter, one in zip("ABCD", panel.get("targets", ()), strict=False)
        ]
        result.append({**panel, "id": number, "gridPos": position, "targets": targets})
    return result


def dashboard() -> Json:
    """Return the dashboard in Grafana's JSON model."""
    panels = [
        *OVERVIEW,
        *(heading("Emitting"), *EMITTING),
        *(heading("Listening"), *LISTENING),
        *(heading("Processes and streams"), *PROCESSES),
    ]
    return {
        "uid": "eventbus",
        "title": "eventbus",
        "tags": ["eventbus"],
        "schemaVersion": 41,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": VARIABLES},
        "panels": placed(panels),
    }


def rendered() -> str:
    """Return the text of the JSON file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(rendered())
