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
    workers: Annotated[
        int,
        typer.Option(min=1, help="Processes that share the events; each has one event loop."),
    ] = 1,
    with_parent: Annotated[
        bool,
        typer.Option("--with-parent", hidden=True, help="Stop when standard input closes."),
    ] = False,
) -> None:
    """Run services until SIGTERM or Ctrl-C, then finish what is in hand and exit 0.

    A second signal ends the process at once. A server that is down is waited for.
    EVENTBUS_METRICS_PORT serves /metrics, /livez and /readyz; with several workers, each on a
    port of its own, counted up from there, and EVENTBUS_INSTANCE gets -0, -1 and so on.
    """
    from eventbus import runner

    if with_parent:
        runner.end_with_parent()
    if workers > 1:
        raise typer.Exit(_run_workers(targets, queue or [], workers))
    raise typer.Exit(runner.run(targets, queues=queue or ()))


def _run_workers(targets: list[str], queues: list[str], count: int) -> int:
    from eventbus import runner
    from eventbus.cli.workers import Workers
    from eventbus.loading import load_all
    from eventbus.settings import Settings
    from eventbus.telemetry import logs

    settings = Settings.load()
    logs.configure(settings)
    # Here too: what is mistyped should end the command once, and not each process.
    services = load_all(targets)
    if queues:
        runner.work_only(services, queues)
    return runner.run_until_stopped(Workers(targets, queues, count, settings).run)
