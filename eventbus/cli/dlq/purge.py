"""``eventbus dlq purge``."""

from typing import TYPE_CHECKING, Annotated

import typer

from eventbus.cli import console
from eventbus.cli.dlq.filters import filtered
from eventbus.cli.dlq.session import All, Numbers, check_choice, chosen
from eventbus.cli.session import Json, ask

if TYPE_CHECKING:
    from eventbus.drivers.jetstream.driver import JetStreamDriver
    from eventbus.ops.deadletters import Place, Where

__all__ = ("purge",)


@filtered
def purge(
    numbers: Numbers = None,
    *,
    where: "Where",
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters for good: nobody can redrive their events any more.

    Asks before it does, and then deletes those that it asked about, and no other.
    """
    from eventbus.ops import deadletters

    check_choice(numbers, where, everything=everything)

    async def find(driver: "JetStreamDriver") -> "list[Place]":
        return [one.place async for one in chosen(driver, numbers, where)]

    places = ask(find)
    if places and not yes:
        question = f"Delete {len(places)} dead letter{'s' if len(places) > 1 else ''} for good?"
        typer.confirm(question, abort=True, err=True)
    removed = ask(lambda driver: deadletters.purge(driver, places)) if places else 0
    if as_json:
        console.print_json({"removed": removed})
    else:
        print(f"{removed} deleted")
