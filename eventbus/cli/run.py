"""``eventbus run``: work services as one process."""

from typing import Annotated

import typer

__all__ = ("run",)


def run(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:NAME...",
            help="Services to run, found from here; several share one process.",
        ),
    ],
    *,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="Work only the listeners of this queue. Repeatable.", metavar="NAME"),
    ] = None,
    with_parent: Annotated[
        bool,
        typer.Option("--with-parent", hidden=True, help="Stop when standard input closes."),
    ] = False,
) -> None:
    """Run services until SIGTERM or Ctrl-C, then finish what is in hand and exit 0.

    A second signal ends the process at once. A server that is down is waited for.
    EVENTBUS_METRICS_PORT serves /metrics, /livez and /readyz.
    """
    from eventbus import runner

    if with_parent:
        runner.end_with_parent()
    raise typer.Exit(runner.run(targets, queues=queue or ()))
