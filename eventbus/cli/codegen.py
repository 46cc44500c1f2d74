"""``eventbus codegen``: source code derived from the declared events."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ("codegen",)

codegen = typer.Typer(no_args_is_help=True, help="Write source code for the declared events.")


@codegen.callback()
def _root() -> None:
    """Write source code for the declared events."""


@codegen.command("types")
def _types(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The module to write.")
    ] = Path("typed_events.py"),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail where the file isn't up to date.")
    ] = False,
) -> None:
    """Write an EventService whose emit("user.created", {...}) type checkers check.

    Import EventService from that module instead of from eventbus. Events are those of schemas/
    (EVENTBUS_SCHEMAS).
    """
    from eventbus.cli import console
    from eventbus.contracts.overloads import overloads
    from eventbus.loading import search_working_directory
    from eventbus.service import EventService

    search_working_directory()
    declared = tuple(EventService("codegen").discover().events())
    if not declared:
        raise typer.Exit(console.stop_with("no event is declared here; set EVENTBUS_SCHEMAS"))
    source = overloads(declared)
    if not check:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(source)
        print(f"{output}: {len(declared)} events")
        return
    if not output.exists() or output.read_text() != source:
        raise typer.Exit(
            console.stop_with(f"{output} isn't up to date; run eventbus codegen types -o {output}")
        )
