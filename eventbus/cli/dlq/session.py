"""What the commands share: the letters that are meant."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eventbus.cli import console

if TYPE_CHECKING:
    from eventbus.drivers.jetstream.driver import JetStreamDriver
    from eventbus.ops.deadletters import Letter, Where

__all__ = ("All", "Numbers", "check_choice", "chosen", "letter_of", "say_none")

All = Annotated[bool, typer.Option("--all", help="Every letter.")]
Numbers = Annotated[
    list[int] | None,
    typer.Argument(
        metavar="NUMBER",
        min=1,
        help="The letters' numbers, in place of a filter.",
        show_default=False,
    ),
]


def check_choice(numbers: Sequence[int] | None, where: "Where", *, everything: bool) -> None:
    """Refuse a command that doesn't say which letters it means, or says it twice."""
    said = [bool(numbers), not where.is_everything, everything]
    if sum(said) == 1:
        return
    if any(said):
        problem = "say it in one way: by numbers, by a filter, or by --all"
    else:
        problem = "which letters? Give their numbers, a filter like --listener, or --all"
    raise typer.Exit(console.stop_with(problem, code=2))


async def chosen(
    driver: "JetStreamDriver",
    numbers: Sequence[int] | None,
    where: "Where",
    limit: int | None = None,
) -> "AsyncIterator[Letter]":
    """Yield the letters that are meant; where a number is nobody's, the command ends first.

    Those of one key come in the sequence of their events.
    """
    from eventbus.ops import deadletters

    if where.key is not None:
        for letter in (await deadletters.of_key(driver, where))[:limit]:
            yield letter
        return
    if not numbers:
        async for letter in deadletters.find(driver, where, limit=limit):
            yield letter
        return
    for letter in [await letter_of(driver, number) for number in dict.fromkeys(numbers)]:
        yield letter


async def letter_of(driver: "JetStreamDriver", number: int) -> "Letter":
    """Return the letter of a number; where there is none, the command ends."""
    from eventbus.ops import deadletters

    letter = await deadletters.show(driver, number)
    if letter is None:
        raise typer.Exit(
            console.stop_with(
                f"there is no dead letter {number} in {driver.letterbox.stream}; "
                "'eventbus dlq list' shows those that are there"
            )
        )
    return letter


def say_none(where: "Where") -> None:
    """Say that there is nothing to do."""
    print("no dead letters" if where.is_everything else "no dead letter fits")
