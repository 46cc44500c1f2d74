"""Ours against hand-written nats-py, in interleaved rounds: ``python -m bench.pair emit_256``.

Each run is a process of its own with a nats-server of its own, the two take turns, and what is
printed are medians and their ratios. See bench/README.md.
"""

import argparse
import asyncio
import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from statistics import median

from bench.load import Result
from eventbus.embedded import NatsServer

__all__ = ("SIZES", "Run", "measure", "run_case")

SIZES = {
    "emit_256": 30_000,
    "emit_1": 3_000,
    "emit_many": 10_000,
    "consume": 60_000,
    "consume_push": 60_000,
    "latency": 1_500,
}
"""Events of one run."""
OURS, PLAIN = "ours", "plain"


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as it is handed to its process."""

    contestant: str
    case: str
    events: int
    uvloop: bool = False


def run_case(run: Run) -> Result:
    """Run one case in this process."""
    factory = None
    if run.uvloop:
        from uvloop import new_event_loop as factory
    cases = importlib.import_module(f"bench.contestants.{run.contestant}").CASES
    with NatsServer() as server, asyncio.Runner(loop_factory=factory) as runner:
        result: Result = runner.run(cases[run.case](server.url, run.events))
        return result


def measure(run: Run, seconds: float | None = None) -> dict[str, float]:
    """Run one case in a process of its own, for so long at most, and return its figures."""
    command = [sys.executable, "-m", "bench.pair", run.case, "--one", run.contestant]
    command += ["--events", str(run.events), *(["--uvloop"] if run.uvloop else [])]
    done = subprocess.run(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(case: str, events: int, rounds: int, *, uvloop: bool) -> None:
    """Print the medians of both, and ours in relation to the other's."""
    found: dict[str, list[dict[str, float]]] = {OURS: [], PLAIN: []}
    for _ in range(rounds):
        for contestant in (PLAIN, OURS):
            found[contestant].append(measure(Run(contestant, case, events, uvloop)))
    for figure in found[OURS][0]:
        ours, plain = (median(one[figure] for one in found[who]) for who in (OURS, PLAIN))
        ratio = ours / plain if figure == "per_second" else plain / ours
        print(f"{case:12} {figure:10} ours {ours:10.1f}  plain {plain:10.1f}  x{ratio:.2f}")


def main() -> None:
    """Compare, or run one case in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="+", choices=sorted(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--one", help="run this contestant alone, in this process")
    asked = parser.parse_args()
    for case in asked.case:
        events = asked.events or SIZES[case]
        if asked.one:
            print(json.dumps(run_case(Run(asked.one, case, events, asked.uvloop)).figures()))
        else:
            compare(case, events, asked.rounds, uvloop=asked.uvloop)


if __name__ == "__main__":
    main()
