"""What the runs of all contestants come to: medians, ratios, and whether a target is reached."""

from dataclasses import dataclass
from statistics import median

__all__ = ("TARGETS", "Comparison", "Figures", "Found", "Target", "Verdict")

Found = dict[str, dict[str, list[dict[str, float]]]]
"""Case, contestant, then the figures of each run; those of a run that failed are empty."""


@dataclass(frozen=True, slots=True)
class Target:
    """What ours has to be in relation to others."""

    what: str
    case: str
    figure: str
    bound: float
    against: tuple[tuple[str, str], ...] = ()
    """Contestant and case; the best of them counts. Nothing: of all the others, by push too."""

    @property
    def at_least(self) -> bool:
        """Tell whether more is better."""
        return self.figure == "per_second"


PLAIN_CONSUME = (("plain", "consume"),)
TARGETS = (
    Target("emit, 256 in flight", "emit_256", "per_second", 3.0, (("plain", "emit_256"),)),
    Target("emit, one at a time", "emit_1", "per_second", 1.2, (("plain", "emit_1"),)),
    Target("emit, one at a time: p99", "emit_1", "p99_us", 1.0, (("plain", "emit_1"),)),
    Target("emit_many of 10,000", "emit_many", "per_second", 3.0, (("plain", "emit_many"),)),
    Target("consume", "consume", "per_second", 3.0, PLAIN_CONSUME),
    Target("emit, 256 in flight, best of the others", "emit_256", "per_second", 1.5),
    Target("consume, best of the others", "consume", "per_second", 1.5),
    Target("emit to handled at 500/s: p50", "latency", "p50_us", 1.1, (("plain", "latency"),)),
    Target("emit to handled at 500/s: p99", "latency", "p99_us", 1.2, (("plain", "latency"),)),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ours in relation to what a target names."""

    target: Target
    ratio: float
    against: str

    @property
    def reached(self) -> bool:
        """Tell whether the target is reached."""
        bound = self.target.bound
        return self.ratio >= bound if self.target.at_least else self.ratio <= bound


@dataclass(frozen=True, slots=True)
class Figures:
    """All that was found."""

    found: Found
    sizes: dict[str, int]
    rounds: int
    missing: dict[str, str]

    @property
    def failed(self) -> list[str]:
        """Return the runs that failed."""
        return [
            f"{who} at {case}"
            for case, contestants in self.found.items()
            for who, runs in contestants.items()
            if not all(runs)
        ]

    def median(self, case: str, who: str, figure: str) -> float | None:
        """Return the median over the rounds, or ``None`` where there is none."""
        runs = self.found.get(case, {}).get(who, [])
        values = [run[figure] for run in runs if figure in run]
        return median(values) if values else None


@dataclass(frozen=True, slots=True)
class Comparison(Figures):
    """What was found of the bus, held against its targets."""

    def ratio(self, case: str, who: str, figure: str) -> float | None:
        """Return a contestant's median in relation to nats-py's."""
        one, plain = self.median(case, who, figure), self.median(case, "plain", figure)
        return None if one is None or plain is None else one / plain

    def verdicts(self) -> list[Verdict]:
        """Judge each target that was measured."""
        return [found for target in TARGETS if (found := self._judge(target)) is not None]

    def _judge(self, target: Target) -> Verdict | None:
        ours = self.median(target.case, "ours", target.figure)
        others = {
            f"{who} {case}": value
            for who, case in target.against or self._others(target.case)
            if (value := self.median(case, who, target.figure)) is not None
        }
        if ours is None or not others:
            return None
        best = (max if target.at_least else min)(others, key=lambda one: others[one])
        return Verdict(target, ours / others[best], best)

    def _others(self, case: str) -> tuple[tuple[str, str], ...]:
        return tuple(
            (who, one)
            for one in (case, f"{case}_push")
            for who in self.found.get(one, {})
            if who != "ours"
        )
