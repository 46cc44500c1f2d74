"""The ``make`` commands put together."""

import typer

from eventbus.cli.make.driver import driver
from eventbus.cli.make.event import event
from eventbus.cli.make.listener import listener

__all__ = ("make",)

make = typer.Typer(
    no_args_is_help=True, help="Write an event, a listener or a driver, with its test."
)
make.command("event")(event)
make.command("listener")(listener)
make.command("driver")(driver)


@make.callback()
def _root() -> None:
    """Write an event, a listener or a driver, with its test; nothing is overwritten."""
