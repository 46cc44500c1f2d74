"""``eventbus dlq list``, ``show`` and ``stats``."""

from typing import TYPE_CHECKING, Annotated

import typer

from eventbus.cli import console
from eventbus.cli.dlq import printing
from eventbus.cli.dlq.filters import filtered
from eventbus.cli.dlq.session import letter_of, say_none
from eventbus.cli.session import Json, ask

if TYPE_CHECKING:
    from eventbus.drivers.jetstream.driver import JetStreamDriver
    from eventbus.ops.deadletters import Letter, Where

__all__ = ("list_letters", "show", "stats")


@filtered
def list_letters(
    *,
    where: "Where",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    oldest: Annotated[
        bool, typer.Option("--oldest", help="The oldest first, not the newest.")
    ] = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="Kinds of failures with their counts, not letters.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List dead letters, the newest first, or the kinds of failures they tell of."""
    if groups:
        _list_groups(where, as_json=as_json)
        return
    from eventbus.ops import deadletters

    async def find(driver: "JetStreamDriver") -> "list[Letter]":
        found = deadletters.find(driver, where, newest_first=not oldest, limit=limit)
        return [one async for one in found]

    letters = ask(find)
    if as_json:
        console.print_json([printing.letter_record(one) for one in letters])
    elif letters:
        printing.print_letters(letters)
    else:
        say_none(where)


def _list_groups(where: "Where", *, as_json: bool) -> None:
    from eventbus.ops import deadletters

    groups = ask(lambda driver: deadletters.groups(deadletters.find(driver, where)))
    if as_json:
        console.print_json([printing.group_record(one) for one in groups])
    elif groups:
        printing.print_groups(groups)
    else:
        say_none(where)


def show(
    number: Annotated[int, typer.Argument(min=1, help="The letter's number, as list shows it.")],
    *,
    as_json: Json = False,
) -> None:
    """Show a dead letter: why it failed, its headers and payload, and its redrives."""
    from eventbus.ops import deadletters

    async def read(driver: "JetStreamDriver") -> "tuple[Letter, tuple[int, ...]]":
        letter = await letter_of(driver, number)
        return letter, await deadletters.failed_again(driver, letter)

    letter, failed_again = ask(read)
    if as_json:
        console.print_json(printing.story_record(letter, failed_again))
    else:
        printing.print_letter(letter, failed_again)


def stats(*, as_json: Json = False) -> None:
    """Count dead letters by listener and reason, and tell how full their stream is."""
    from eventbus.ops import deadletters

    found = ask(deadletters.stats)
    if as_json:
        console.print_json(printing.stats_record(found))
    else:
        printing.print_stats(found)
