"""``eventbus events``: what is declared, and who listens."""

import shutil
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from eventbus.ops.catalog import Declared
    from eventbus.service import EventService

__all__ = ("events",)


def events(
    *,
    service: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="Show who listens in this service. Repeatable; all of services/ where not given.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the declared events: version, key, fields, and the listeners that take them.

    Events are those of schemas/ (EVENTBUS_SCHEMAS) and those that the services name. Nothing is
    asked of a server.
    """
    from eventbus.cli import console
    from eventbus.ops.catalog import catalog

    found = catalog(_services(service or []))
    if as_json:
        console.print_json([asdict(one) for one in found])
        return
    if not found:
        raise typer.Exit(_nothing())
    _print(found)


def _services(targets: list[str]) -> "list[EventService]":
    from eventbus.loading import discover, load_all, search_working_directory

    search_working_directory()
    return load_all(targets) if targets else [one for _, one in discover()]


def _nothing() -> int:
    from eventbus.cli import console

    return console.stop_with(
        "no event is declared here; run from the folder that holds schemas/, or set "
        "EVENTBUS_SCHEMAS to the package that declares them"
    )


def _print(found: "tuple[Declared, ...]") -> None:
    width = max(len(one.name) for one in found)
    for one in found:
        key = f"  key {one.key}" if one.key else ""
        kind = f"  {one.kind}" if one.kind != "event" else ""
        print(f"{one.name:<{width}}  v{one.version}{key}{kind}")
        print(_indented(", ".join(str(field) for field in one.fields) or "no fields"))
        takers = ", ".join(f"{each.service}.{each.listener}" for each in one.listeners)
        print(_indented(f"-> {takers or 'nobody listens'}"))


def _indented(text: str) -> str:
    width = max(40, shutil.get_terminal_size((100, 24)).columns)
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="     ")
