"""Ours beside the outboxes from PyPI, on one PostgreSQL: ``python -m bench.outboxes``.

Each run is a process of its own with a nats-server and an empty database of its own; within a
round all take turns at each case. What is found goes to bench/results/. See bench/README.md.
"""

import argparse
import asyncio
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

from bench.outboxes.cases import CASES, SIZES, run_case
from bench.outboxes.report import Outboxes, markdown, write
from eventbus.embedded import NatsServer
from tests.postgres import Postgres

CONTESTANTS = (
    "bare",
    "ours",
    "bare_psycopg",
    "ours_psycopg",
    "faststream_outbox",
    "nats_outbox",
)
LONGEST = 180.0
"""Seconds after which a run counts as failed."""
RESULTS = Path(__file__).parent.parent / "results"


def main() -> int:
    """Run all that is asked for; a peer that is missing or fails is named, and the rest goes on."""
    asked = _arguments()
    if asked.one:
        outbox = importlib.import_module(f"bench.outboxes.{asked.one}").OUTBOX
        with NatsServer() as server:
            run = run_case(outbox, asked.cases[0], asked.events, (asked.postgres, server.url))
            print(json.dumps(asyncio.run(run).figures()))
        return 0
    sizes = {case: asked.events or SIZES[case] for case in asked.cases}
    takes_part, missing = _contestants(asked.only or CONTESTANTS)
    with Postgres() as postgres:
        outboxes = Outboxes({case: {} for case in sizes}, sizes, asked.rounds, missing)
        for number in range(asked.rounds):
            _round(number, outboxes, takes_part, postgres)
    if asked.smoke:
        print("all ran; so few events compare nothing" if not outboxes.failed else "failed")
    else:
        print("\n" + markdown(outboxes))
        write(outboxes, RESULTS)
    return 1 if outboxes.failed else 0


def _contestants(names: tuple[str, ...]) -> tuple[dict[str, bool], dict[str, str]]:
    """Return who can run here, and whether it relays; and why others can't."""
    takes_part, missing = {}, {}
    for name in names:
        try:
            takes_part[name] = importlib.import_module(f"bench.outboxes.{name}").OUTBOX.relays
        except ImportError as error:
            missing[name] = f"{type(error).__name__}: {error}"
            print(f"{name} can't run here: {missing[name]}", file=sys.stderr)
    return takes_part, missing


def _round(
    number: int, outboxes: Outboxes, takes_part: dict[str, bool], postgres: Postgres
) -> None:
    for case, events in outboxes.sizes.items():
        turns = [who for who, relays in takes_part.items() if relays or case == "write"]
        # Nobody always follows the same one, or always comes first.
        for contestant in turns if number % 2 == 0 else reversed(turns):
            began = time.monotonic()
            dsn = postgres.database()
            figures = _run(contestant, case, events, dsn)
            postgres.drop(dsn)
            outboxes.found[case].setdefault(contestant, []).append(figures)
            said = f"{figures['per_second']:9.0f}/s" if figures else "failed"
            took = time.monotonic() - began
            text = f"{number + 1}/{outboxes.rounds} {case:6} {contestant:18} {said} {took:5.1f} s"
            print(text, flush=True)


def _run(contestant: str, case: str, events: int, dsn: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.outboxes", "--one", contestant, "--cases", case]
    command += ["--events", str(events), "--postgres", dsn]
    try:
        done = subprocess.run(  # noqa: S603
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=LONGEST
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{contestant} failed at {case}: {error}", file=sys.stderr)
        return {}
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.outboxes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=0, help="events of each run")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, help="only these")
    parser.add_argument(
        "--smoke", action="store_true", help="one round of 100 events, and no results written"
    )
    parser.add_argument("--one", help="run this contestant alone, in this process")
    parser.add_argument("--postgres", help="the empty database for it, as postgresql://...")
    asked = parser.parse_args()
    if asked.smoke:
        asked.rounds, asked.events = 1, 100
    return asked


if __name__ == "__main__":
    sys.exit(main())
