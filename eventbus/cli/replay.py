"""``eventbus listener replay``: hand a listener again what it has had."""

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from eventbus.cli import console
from eventbus.cli.moments import moment
from eventbus.cli.session import Json

__all__ = ("replay",)

_TIME = "2026-03-01T10:00Z, or how long ago, such as 2h"


def replay(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="Its service.")],
    name: Annotated[str, typer.Argument(metavar="LISTENER", help="The listener's name.")],
    *,
    start: Annotated[
        str,
        typer.Option("--from", metavar="PLACE", help=f"all, a sequence, or a time: {_TIME}."),
    ],
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was stored before; now if none.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also what its inbox, or an atomic one, has marked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hand a listener events again that it has had; ends once all are handled.

    Its position stays what it is, and other listeners hear nothing of it. Until the end this is
    one more process of the service.
    """
    from eventbus.loading import load
    from eventbus.ops import replaying
    from eventbus.settings import Settings
    from eventbus.telemetry import logs

    logs.configure(Settings.load())
    place, end = _place(start), None if until is None else moment("--until", until)
    work = replaying.replay(load(target), name, place, until=end, again=again)
    count = asyncio.run(work)
    if as_json:
        console.print_json({"listener": name, "replayed": count})
    else:
        print(f"{name} was handed {count} event{'' if count == 1 else 's'} again")


def _place(start: str) -> str | int | datetime:
    if start == "all":
        return start
    return int(start) if start.isdecimal() else moment("--from", start)
