"""`SharedTallies`: tallies that other processes see, in prometheus-client's multiprocess mode.

An application whose web server forks sets ``PROMETHEUS_MULTIPROC_DIR`` and sums the processes up
with a `MultiProcessCollector` of its own. What it reads are files, which only prometheus-client's
classes write; so each addition is told to them too, at their price.
"""

import os
from collections.abc import Callable, Sequence
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram
from typing_extensions import override

from eventbus.telemetry.families import COUNTERS, GAUGES, HISTOGRAMS
from eventbus.telemetry.tallies import Labels, Spread, Tallies, Tally

__all__ = ("SharedTallies", "is_multiprocess")


_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")


def is_multiprocess() -> bool:
    """Tell whether prometheus-client writes its values to files."""
    return any(name in os.environ for name in _VARIABLES)


class SharedTallies(Tallies):
    """Tallies that are written to the files of prometheus-client too."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        # Of no registry: what this process shows itself is what it has counted itself.
        self._counters = {
            name: Counter(name, text, labels, registry=None)
            for name, (text, labels) in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(name, text, labels, registry=None)
            for name, (text, labels) in GAUGES.items()
        }
        self._histograms = {
            name: Histogram(name, text, labels, buckets=buckets, registry=None)
            for name, (text, labels, buckets) in HISTOGRAMS.items()
        }
        super().__init__(now)

    @override
    def _new_tally(self, name: str, labels: Labels) -> Tally:
        counter = self._counters.get(name)
        if counter is not None:
            return _SharedCounter(self._now(), counter.labels(*labels) if labels else counter)
        gauge = self._gauges[name]
        return _SharedGauge(self._now(), gauge.labels(*labels) if labels else gauge)

    @override
    def _new_spread(self, name: str, labels: Labels) -> Spread:
        return _SharedSpread(
            self._now, HISTOGRAMS[name][2], self._histograms[name].labels(*labels)
        )


class _SharedCounter(Tally):
    __slots__ = ("_child",)

    def __init__(self, created: datetime, child: Counter) -> None:
        super().__init__(created)
        self._child = child

    @override
    def add(self, number: float = 1) -> None:
        super().add(number)
        self._child.inc(number)


class _SharedGauge(Tally):
    __slots__ = ("_child",)

    def __init__(self, created: datetime, child: Gauge) -> None:
        super().__init__(created)
        self._child = child

    @override
    def add(self, number: float = 1) -> None:
        self.show(self.value + number)

    @override
    def show(self, value: float) -> None:
        super().show(value)
        self._child.set(value)


class _SharedSpread(Spread):
    __slots__ = ("_child",)

    def __init__(
        self, now: Callable[[], datetime], bounds: Sequence[float], child: Histogram
    ) -> None:
        super().__init__(bounds, now)
        self._child = child

    @override
    def add(self, value: float, trace_id: str = "", at: datetime | None = None) -> None:
        super().add(value, trace_id, at)
        self._child.observe(value)
