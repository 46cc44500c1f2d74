"""``eventbus dev``: services with a server of their own, restarted when their code changes."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ("dev",)


def dev(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:NAME...", help="Services to run, each in a process of its own."
        ),
    ],
    *,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep events here between runs; a temporary one where unset."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port of the nats-server; 4222, or a free one where that is taken."),
    ] = None,
) -> None:
    """Run services on a nats-server of their own, in this terminal, until Ctrl-C.

    A change of a .py file restarts the services it can concern: those whose folder it is in, or
    all of them.
    """
    from eventbus import runner
    from eventbus.cli.workshop import Workshop
    from eventbus.loading import load_all

    # Here too: a mistyped target should end the command, not be waited for.
    load_all(targets)
    raise typer.Exit(runner.run_until_stopped(Workshop(targets, store=store, port=port).run))
