"""``eventbus dlq``: its commands put together."""

import typer

from eventbus.cli.dlq.purge import purge
from eventbus.cli.dlq.reading import list_letters, show, stats
from eventbus.cli.dlq.redrive import redrive

__all__ = ("dlq",)

dlq = typer.Typer(
    no_args_is_help=True,
    help="Work the dead letters: events that a listener couldn't handle.",
)
dlq.command("list")(list_letters)
dlq.command("show")(show)
dlq.command("redrive")(redrive)
dlq.command("purge")(purge)
dlq.command("stats")(stats)
