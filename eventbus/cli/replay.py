"""``eventbus listener replay``: hand a listener again what it has had."""

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
    one more process of the service. SIGTERM or Ctrl-C stops it in order, as it stops 'run', and
    it says how far it was; the exit code is the signal's then. A second one ends it at once.
    """
    from eventbus import runner
    from eventbus.loading import load
    from eventbus.ops import replaying
    from eventbus.settings import Settings
    from eventbus.telemetry import logs

    settings = Settings.load()
    logs.configure(settings)
    place, end = _place(start), None if until is None else moment("--until", until)
    service = load(target)

    async def work(stop: runner.Stop) -> int:
        stop.grace = settings.grace + runner.SLACK
        try:
            count = await replaying.replay(service, name, place, stop, until=end, again=again)
        except ExceptionGroup as group:
            if not stop.asked:
                raise
            console.say_stopped(group)
            return stop.code
        if count is None:
            return stop.code
        if as_json:
            console.print_json({"listener": name, "replayed": count})
        else:
            print(f"{name} was handed {count} event{'' if count == 1 else 's'} again")
        return 0

    raise typer.Exit(runner.run_until_stopped(work))


def _place(start: str) -> str | int | datetime:
    if start == "all":
        return start
    return int(start) if start.isdecimal() else moment("--from", start)
