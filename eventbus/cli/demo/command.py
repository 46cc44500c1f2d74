"""``eventbus demo``: see the system work."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ("demo",)


def demo(
    *,
    deliveries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='GitHub deliveries to send, one {"event": ..., "payload": ...} a line.',
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")
    ] = False,
) -> None:
    """Run the example services with traffic, and account for every event.

    Starts a nats-server and each service as a process of its own, in a temporary folder. Exits
    with 1 where an event was neither handled by every listener nor kept as a dead letter.
    """
    from eventbus import runner
    from eventbus.cli.demo.play import Demo

    raise typer.Exit(runner.run_until_stopped(Demo(file=deliveries, keep=keep).run))
