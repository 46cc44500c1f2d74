"""The ``make`` commands put together."""

import typer

from eventbus.cli.make.event import event

__all__ = ("make",)

make = typer.Typer(no_args_is_help=True, help="Write an event or a listener, with its test.")
make.command("event")(event)


@make.callback()
def _root() -> None:
    """Write an event or a listener, with its test; nothing is overwritten."""
