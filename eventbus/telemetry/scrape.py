"""`Scrape`: hands the tallies of a process to prometheus-client, when it is scraped."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import metrics
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from eventbus.telemetry.families import COUNTERS, GAUGES, HISTOGRAMS
from eventbus.telemetry.tallies import Spread, Tallies

__all__ = ("Scrape",)


class Scrape(Collector):
    """The families of metrics of one process, to be registered once.

    What it exposes is what prometheus-client's own classes would. Safe from any thread.
    """

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def describe(self) -> Iterable[Metric]:
        """Return the families without their values, so that no name is registered twice."""
        yield from (_counters(name) for name in COUNTERS)
        yield from (_histograms(name) for name in HISTOGRAMS)
        yield from (_gauges(name) for name in GAUGES)

    def collect(self) -> Iterator[Metric]:
        """Return the families with their values."""
        with_created = _with_created()
        for name in COUNTERS:
            yield self._counted(name, with_created=with_created)
        for name in HISTOGRAMS:
            yield self._measured(name, with_created=with_created)
        for name in GAUGES:
            family = _gauges(name)
            for labels, one in self._tallies.tallies(name).items():
                family.add_metric(labels, one.value)
            yield family

    def _counted(self, name: str, *, with_created: bool) -> Metric:
        family = _counters(name)
        for labels, one in self._tallies.tallies(name).items():
            family.add_metric(labels, one.value, one.created.timestamp() if with_created else None)
        return family

    def _measured(self, name: str, *, with_created: bool) -> Metric:
        _, label_names, bounds = HISTOGRAMS[name]
        ends = (*(str(float(one)) for one in bounds), "+Inf")
        family = _histograms(name)
        for labels, one in self._tallies.spreads(name).items():
            named = dict(zip(label_names, labels, strict=True))
            family.samples += _samples(name, named, ends, one)
            if with_created:
                family.samples.append(Sample(f"{name}_created", named, one.created.timestamp()))
        return family


def _samples(
    name: str, labels: Mapping[str, str], ends: tuple[str, ...], spread: Spread
) -> Iterator[Sample]:
    # Copied first, and the sum of the copy is the count: the event loop goes on adding.
    sums = tuple(accumulate(tuple(spread.counts)))
    seen = spread.seen.copy()
    for bucket, (end, count) in enumerate(zip(ends, sums, strict=True)):
        example = seen.get(bucket)
        exemplar = None
        if example is not None:
            trace, value, at = example
            exemplar = Exemplar({"trace_id": trace}, value, at.timestamp())
        yield Sample(f"{name}_bucket", {**labels, "le": end}, count, None, exemplar)
    yield Sample(f"{name}_count", {**labels}, sums[-1])
    yield Sample(f"{name}_sum", {**labels}, spread.sum)


def _counters(name: str) -> CounterMetricFamily:
    text, labels = COUNTERS[name]
    return CounterMetricFamily(name, text, labels=labels)


def _histograms(name: str) -> HistogramMetricFamily:
    text, labels, _ = HISTOGRAMS[name]
    return HistogramMetricFamily(name, text, labels=labels)


def _gauges(name: str) -> GaugeMetricFamily:
    text, labels = GAUGES[name]
    return GaugeMetricFamily(name, text, labels=labels)


def _with_created() -> bool:
    """Tell whether the application wants to see when a series began."""
    # Set by its functions and its environment variable, and told by nothing public.
    return bool(getattr(metrics, "_use_created", True))
