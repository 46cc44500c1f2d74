"""Ours, hand-written nats-py and the peers from PyPI, compared: ``python -m bench``.

Each run is a process of its own with a nats-server of its own; within a round all take turns at
each case. What is found goes to bench/results/. See bench/README.md.
"""

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

from bench.comparison import Comparison, Found
from bench.pair import SIZES, Run, measure
from bench.report import markdown, write

CONTESTANTS = (
    "ours",
    "plain",
    "faststream",
    "walnats",
    "cliffracer",
    "taskiq_nats",
    "natsio",
)
CASES = ("emit_256", "emit_1", "emit_many", "consume", "consume_push", "latency")
LONGEST = 180.0
"""Seconds after which a run counts as failed."""
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run all that is asked for; a peer that is missing or fails is named, and the rest goes on."""
    asked = _arguments()
    missing = {}
    takes_part: dict[str, list[str]] = {}
    for name in asked.only or CONTESTANTS:
        try:
            cases = importlib.import_module(f"bench.contestants.{name}").CASES
        except (ImportError, SyntaxError) as error:
            missing[name] = f"{type(error).__name__}: {error}"
            print(f"{name} can't run here: {missing[name]}", file=sys.stderr)
        else:
            takes_part[name] = [case for case in asked.cases if case in cases]
    sizes = {case: asked.events or max(1, int(SIZES[case] * asked.scale)) for case in asked.cases}
    found = _measured(takes_part, sizes, asked.rounds, uvloop=asked.uvloop)
    comparison = Comparison(found, sizes, asked.rounds, missing)
    if asked.smoke:
        print("all ran; so few events compare nothing" if not comparison.failed else "failed")
    else:
        print("\n" + markdown(comparison))
        write(comparison, RESULTS)
    return 1 if comparison.failed else 0


def _measured(
    takes_part: dict[str, list[str]], sizes: dict[str, int], rounds: int, *, uvloop: bool
) -> Found:
    found: Found = {case: {} for case in sizes}
    for number in range(rounds):
        for case, events in sizes.items():
            turns = [who for who, cases in takes_part.items() if case in cases]
            # Nobody always follows the same one, or always comes first.
            for contestant in turns if number % 2 == 0 else reversed(turns):
                began = time.monotonic()
                figures = _run(Run(contestant, case, events, uvloop))
                found[case].setdefault(contestant, []).append(figures)
                said = f"{figures['per_second']:9.0f}/s" if figures else "failed"
                took = time.monotonic() - began
                text = f"{number + 1}/{rounds} {case:12} {contestant:11} {said} {took:5.1f} s"
                print(text, flush=True)
    return found


def _run(run: Run) -> dict[str, float]:
    try:
        return measure(run, LONGEST)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{run.contestant} failed at {run.case}: {error}", file=sys.stderr)
        return {}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the usual events")
    parser.add_argument("--events", type=int, default=0, help="events of each run")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--uvloop", action="store_true", help="give uvloop to all")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, help="only these")
    parser.add_argument(
        "--smoke", action="store_true", help="one round of 300 events, and no results written"
    )
    asked = parser.parse_args()
    if asked.smoke:
        asked.rounds, asked.events = 1, 300
    return asked


if __name__ == "__main__":
    sys.exit(main())
