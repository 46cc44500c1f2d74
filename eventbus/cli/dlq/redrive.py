"""``eventbus dlq redrive``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from eventbus.cli import console
from eventbus.cli.dlq import printing
from eventbus.cli.dlq.editing import changed_letter
from eventbus.cli.dlq.filters import filtered
from eventbus.cli.dlq.session import All, Numbers, check_choice, chosen, say_none
from eventbus.cli.session import Json, ask

if TYPE_CHECKING:
    from eventbus.drivers.jetstream.driver import JetStreamDriver
    from eventbus.ops.deadletters import Where

__all__ = ("redrive",)

REFUSED = "refused"


@filtered
def redrive(  # noqa: PLR0913 - one for each option
    numbers: Numbers = None,
    *,
    where: "Where",
    everything: All = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also letters of a filter that were redriven before.")
    ] = False,
    rate: Annotated[
        str | None, typer.Option(metavar="20/s", help="Most events a time; without, at once.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show, and send nothing.")] = False,
    payload: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Send this payload, of one letter; - reads stdin."),
    ] = None,
    edit: Annotated[
        bool, typer.Option("--edit", help="Edit the payload of one letter in $EDITOR.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send the events of dead letters to the one listener that failed, and to no other.

    Letters stay, with a record of the redrive.
    With --key they go in the sequence of their events, and free a parked key.
    Those of a filter that were redriven before are left out.
    Another payload is checked against the event's class before anything is sent.
    Exits with 1 where an event could not be sent.
    """
    check_choice(numbers, where, everything=everything)
    _check_rate(rate)
    if where.redriven is None and not numbers and not again:
        where = replace(where, redriven=False)
    changed = None
    if payload is not None or edit:
        changed = changed_letter(_only(numbers), payload)

    async def send(driver: "JetStreamDriver") -> list[dict[str, object]]:
        from eventbus.ops import deadletters

        given = [changed] if changed else chosen(driver, numbers, where, limit)
        done: list[dict[str, object]] = []
        async for one in deadletters.redrive(driver, given, rate=rate, dry_run=dry_run):
            done.append(printing.redriven_record(one))
            if not as_json:
                print(printing.redriven_line(one), flush=True)
        return done

    done = ask(send)
    if as_json:
        console.print_json(done)
    else:
        _sum_up(done, where)
    if any(one["result"] == REFUSED for one in done):
        raise typer.Exit(1)


def _check_rate(rate: str | None) -> None:
    from eventbus.ops.deadletters import per_second

    try:
        if rate is not None:
            per_second(rate)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--rate") from exc


def _only(numbers: Sequence[int] | None) -> int:
    if numbers is None or len(numbers) != 1:
        raise typer.BadParameter("--payload and --edit are for one letter, by its number")
    return numbers[0]


def _sum_up(done: list[dict[str, object]], where: "Where") -> None:
    if not done:
        say_none(where)
        return
    for line in printing.parked_lines(done):
        print(line)
    counts = Counter(str(one["result"]) for one in done)
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
