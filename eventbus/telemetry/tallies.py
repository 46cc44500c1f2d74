"""What is counted while events pass: plain numbers, which nobody formats before a scrape.

An event is counted several times, so that each addition has to cost no more than itself. There
are no locks: one thread adds, that of the event loop, and any other may read. A reader sees each
number as it is at some moment of its reading; the buckets of a `Spread` always add up to its
count, and its sum may be one measurement ahead or behind.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from eventbus.telemetry.families import COUNTERS, GAUGES, HISTOGRAMS

__all__ = ("Labels", "Seen", "Spread", "Tallies", "Tally")

Labels: TypeAlias = tuple[str, ...]
"""The values of a family's labels, in its order."""


class Tally:
    """One number, by one set of labels: what a counter has counted, or what a gauge shows."""

    __slots__ = ("created", "value")

    def __init__(self, created: datetime) -> None:
        self.created = created
        """When it was made."""
        self.value = 0.0

    def add(self, number: float = 1) -> None:
        """Count so many more."""
        self.value += number

    def show(self, value: float) -> None:
        """Show this from now on."""
        self.value = value


Seen: TypeAlias = tuple[str, float, datetime]
"""A measurement that leads to its trace: the trace's id, the value, and when it was taken."""


class Spread:
    """How often a measurement fell into which bucket, by one set of labels: a histogram."""

    __slots__ = ("_bounds", "_first", "_now", "counts", "created", "seen", "sum")

    def __init__(self, bounds: Sequence[float], now: Callable[[], datetime]) -> None:
        self._bounds = tuple(bounds)
        self._first = self._bounds[0] if self._bounds else -math.inf
        self._now = now
        self.created = now()
        self.counts = [0] * (len(self._bounds) + 1)
        """Measurements in each bucket alone; the last is what is above all bounds."""
        self.sum = 0.0
        self.seen: dict[int, Seen] = {}
        """The last measurement with a trace, by bucket."""

    def add(self, value: float, trace_id: str = "", at: datetime | None = None) -> None:
        """Count a measurement; with a trace, show this one as the example of its bucket.

        ``at`` is when it was taken: now where None.
        """
        # Most are in the first bucket, and looking that up takes as long as all the rest.
        bucket = 0 if value <= self._first else bisect_left(self._bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if trace_id:
            self.seen[bucket] = trace_id, value, at or self._now()


class Tallies:
    """All tallies of a process, by family and labels; each is made when it is first asked for.

    Ask once and keep what you get where events pass. A family without labels has its tally, at 0,
    from the start.

    Args:
        now: The wall clock time.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        plain = {**COUNTERS, **GAUGES}
        self._tallies: dict[str, dict[Labels, Tally]] = {name: {} for name in plain}
        self._spreads: dict[str, dict[Labels, Spread]] = {name: {} for name in HISTOGRAMS}
        for name, (_, labels) in plain.items():
            if not labels:
                self.tally(name)

    def tally(self, name: str, *labels: str) -> Tally:
        """Return the tally of a counter or a gauge."""
        family = self._tallies[name]
        found = family.get(labels)
        if found is None:
            found = family[labels] = self._new_tally(name, labels)
        return found

    def by(self, name: str, *labels: str, each: Iterable[str]) -> Mapping[str, Tally]:
        """Return the tallies of a family by the values of its last label."""
        return {one: self.tally(name, *labels, one) for one in each}

    def spread(self, name: str, *labels: str) -> Spread:
        """Return the spread of a histogram."""
        family = self._spreads[name]
        found = family.get(labels)
        if found is None:
            found = family[labels] = self._new_spread(name, labels)
        return found

    def tallies(self, name: str) -> Mapping[Labels, Tally]:
        """Return the tallies of a family, as they are now; safe from any thread."""
        return self._tallies[name].copy()

    def spreads(self, name: str) -> Mapping[Labels, Spread]:
        """Return the spreads of a family, as they are now; safe from any thread."""
        return self._spreads[name].copy()

    # With names and labels, for who writes them elsewhere too.

    def _new_tally(self, name: str, labels: Labels) -> Tally:  # noqa: ARG002
        return Tally(self._now())

    def _new_spread(self, name: str, labels: Labels) -> Spread:  # noqa: ARG002
        return Spread(HISTOGRAMS[name][2], self._now)
