"""What a scrape shows of tallies is what prometheus-client's own classes would show."""

from collections.abc import Iterator
from datetime import UTC, datetime

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from eventbus.telemetry.families import COUNTERS, GAUGES, HISTOGRAMS
from eventbus.telemetry.metrics import Metrics
from eventbus.telemetry.scrape import Scrape
from eventbus.telemetry.tallies import Tallies

NOW = datetime(2026, 1, 2, 3, 4, 5, 250_000, UTC)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
VALUES = (-1.0, 0.0, 0.001, 0.0011, 0.0125, 0.5, 1, 4, 4.5, 60.0, 300.0, 300.1, 1e9, float("inf"))


@pytest.fixture(autouse=True)
def _at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", NOW.timestamp)


@pytest.fixture
def _without_created() -> Iterator[None]:
    prometheus_client.disable_created_metrics()
    yield
    prometheus_client.enable_created_metrics()


def filled() -> CollectorRegistry:
    """Return tallies of every family, by two sets of labels where it has labels."""
    tallies = Tallies(lambda: NOW)
    for number, (name, (_, labels)) in enumerate({**COUNTERS, **GAUGES}.items()):
        for values in _labelled(labels):
            tallies.tally(name, *values).add(number)
    for name, (_, labels, _) in HISTOGRAMS.items():
        for values in _labelled(labels):
            for value in VALUES:
                tallies.spread(name, *values).add(value, TRACE if value > 0.01 else "")
    registry = CollectorRegistry()
    registry.register(Scrape(tallies))
    return registry


def expected() -> CollectorRegistry:
    """Return the same in the classes of prometheus-client."""
    registry = CollectorRegistry()
    for number, (name, (text, labels)) in enumerate(COUNTERS.items()):
        counter = Counter(name, text, labels, registry=registry)
        for values in _labelled(labels):
            (counter.labels(*values) if values else counter).inc(number)
    for name, (text, labels, buckets) in HISTOGRAMS.items():
        histogram = Histogram(name, text, labels, buckets=buckets, registry=registry)
        for values in _labelled(labels):
            for value in VALUES:
                exemplar = {"trace_id": TRACE} if value > 0.01 else None
                histogram.labels(*values).observe(value, exemplar)
    for number, (name, (text, labels)) in enumerate(GAUGES.items(), len(COUNTERS)):
        gauge = Gauge(name, text, labels, registry=registry)
        for values in _labelled(labels):
            (gauge.labels(*values) if values else gauge).inc(number)
    return registry


def _labelled(labels: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [tuple(f"{one}-{which}" for one in labels) for which in "ab"] if labels else [()]


def test_the_text_of_a_scrape_is_that_of_prometheus_client() -> None:
    assert generate_latest(filled()) == generate_latest(expected())


def test_the_openmetrics_of_a_scrape_are_those_of_prometheus_client_exemplars_included() -> None:
    assert generate_openmetrics(filled()) == generate_openmetrics(expected())


@pytest.mark.usefixtures("_without_created")
def test_an_application_that_wants_no_created_series_gets_none() -> None:
    text = generate_latest(filled())

    assert text == generate_latest(expected())
    assert b"_created" not in text


def test_one_registry_takes_the_metrics_once() -> None:
    registry = CollectorRegistry()
    Metrics(lambda _: True, registry=registry)

    with pytest.raises(ValueError, match="eventbus_emitted"):
        Metrics(lambda _: True, registry=registry)


def test_a_scrape_may_ask_for_some_names_only() -> None:
    restricted = filled().restricted_registry(["eventbus_in_flight", "eventbus_attempts_count"])

    names = {sample.name for family in restricted.collect() for sample in family.samples}
    assert names == {"eventbus_in_flight", "eventbus_attempts_count"}


def test_the_count_of_a_histogram_is_the_sum_of_its_buckets_and_its_sum_that_of_its_values() -> (
    None
):
    tallies = Tallies(lambda: NOW)
    spread = tallies.spread("eventbus_attempts", "send")

    for attempt in (1, 1, 2, 30):
        spread.add(attempt)

    assert spread.counts == [2, 1, 0, 0, 0, 0, 0, 0, 1]
    assert spread.sum == 34


def test_what_was_asked_for_once_stays_the_one_that_is_shown() -> None:
    tallies = Tallies(lambda: NOW)
    kept = tallies.tally("eventbus_in_flight", "send")

    shown = tallies.tallies("eventbus_in_flight")
    kept.value += 3
    tallies.tally("eventbus_in_flight", "other")

    assert tallies.tally("eventbus_in_flight", "send") is kept
    assert list(shown) == [("send",)], "a copy, which the event loop doesn't change"
    assert shown["send",].value == 3
