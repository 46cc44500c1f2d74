"""Read the metrics of a service: parse a scrape, add up series, estimate quantiles."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ("Buckets", "Samples", "parse")

_Series: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name, and its labels in order."""

OUTBOX = "outbox"
"""What metrics call the driver of an event that waits in a transaction."""
_WANTED = frozenset(
    (
        "eventbus_emitted_total",
        "eventbus_relayed_total",
        "eventbus_processed_total",
        "eventbus_end_to_end_seconds_bucket",
        "eventbus_dead_letters_total",
    )
)


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: how many observations were at most each bound."""

    counts: Mapping[float, int] = field(default_factory=dict[float, int])

    @property
    def total(self) -> int:
        """How many observations there are."""
        return self.counts.get(math.inf, 0)

    def __add__(self, other: "Buckets") -> "Buckets":
        """Put the observations of both together."""
        return Buckets(dict(Counter(self.counts) + Counter(other.counts)))

    def quantile(self, share: float) -> float | None:
        """Estimate what a share of the observations was at most, in seconds; None without any.

        Within a bucket they are taken to be spread evenly, as Prometheus does. Beyond the highest
        bound that bound is returned.
        """
        if not self.total:
            return None
        rank, low, below = share * self.total, 0.0, 0
        for bound, count in sorted(self.counts.items()):
            if count >= rank and count > below:
                if math.isinf(bound):
                    return low
                return low + (bound - low) * (rank - below) / (count - below)
            low, below = bound, count
        return low


@dataclass(frozen=True, slots=True)
class Samples:
    """What one process counts."""

    values: Mapping[_Series, float] = field(default_factory=dict[_Series, float])

    def __add__(self, other: "Samples") -> "Samples":
        """Put what two processes count together."""
        names = {**self.values, **other.values}
        return Samples({one: self.values.get(one, 0) + other.values.get(one, 0) for one in names})

    def emitted(self) -> Counter[str]:
        """Return how many events it has had stored by the server, by name.

        An event that went into an outbox counts once it has left it: before, it may be rolled
        back.
        """
        counts: Counter[str] = Counter()
        for labels, value in self._series("eventbus_emitted_total", outcome="ok"):
            if labels["driver"] != OUTBOX:
                counts[labels["event"]] += int(value)
        for labels, value in self._series("eventbus_relayed_total"):
            counts[labels["event"]] += int(value)
        return +counts

    def processed(self, event: str, listener: str, outcomes: Iterable[str]) -> int:
        """Return how many deliveries of an event its listener has settled with these outcomes."""
        name = "eventbus_processed_total"
        found = self._series(name, event=event, listener=listener)
        return int(sum(value for labels, value in found if labels["outcome"] in set(outcomes)))

    def total(self, name: str, **wanted: str) -> int:
        """Return the sum of a metric's series that have these labels."""
        return int(sum(value for _, value in self._series(name, **wanted)))

    def end_to_end(self, event: str, listener: str) -> Buckets:
        """Return how long it took from emit to handled."""
        name = "eventbus_end_to_end_seconds_bucket"
        found = self._series(name, event=event, listener=listener)
        return Buckets({float(labels["le"]): int(value) for labels, value in found})

    def _series(self, name: str, **wanted: str) -> Iterable[tuple[dict[str, str], float]]:
        for (found, pairs), value in self.values.items():
            labels = dict(pairs)
            if found == name and wanted.items() <= labels.items():
                yield labels, value


def parse(text: str) -> Samples:
    """Return the series of a scrape that the demo reads."""
    from prometheus_client.parser import text_string_to_metric_families

    return Samples(
        {
            (one.name, tuple(sorted(one.labels.items()))): one.value
            for family in text_string_to_metric_families(text)
            for one in family.samples
            if one.name in _WANTED
        }
    )
