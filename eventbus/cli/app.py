"""The commands put together, with what they share: ``--version`` and how an error ends them."""

from typing import Annotated

import typer

from eventbus.cli import console
from eventbus.cli.codegen import codegen
from eventbus.cli.demo.command import demo
from eventbus.cli.dev import dev
from eventbus.cli.dlq.command import dlq
from eventbus.cli.emit import emit
from eventbus.cli.events import events
from eventbus.cli.listener import listener
from eventbus.cli.make.command import make
from eventbus.cli.outbox import outbox, relay
from eventbus.cli.run import run as run_services
from eventbus.cli.schedule import schedule
from eventbus.cli.store import store
from eventbus.errors import EventBusError

__all__ = ("app", "run")

app = typer.Typer(
    name="eventbus",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from eventbus import __version__

        print(f"eventbus {__version__}")
        raise typer.Exit


@app.callback(epilog="Settings are EVENTBUS_* variables; .env.example lists them.")
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Typed events between Python microservices, on NATS JetStream."""


app.command("run")(run_services)
app.command("dev")(dev)
app.command("demo")(demo)
app.command("emit")(emit)
app.command("events")(events)
app.add_typer(codegen, name="codegen")
app.add_typer(dlq, name="dlq")
app.add_typer(listener, name="listener")
app.add_typer(make, name="make")
app.command("relay")(relay)
app.add_typer(outbox, name="outbox")
app.add_typer(schedule, name="schedule")
app.add_typer(store, name="store")


def run() -> int:
    """Run the command of ``sys.argv`` and return its exit code.

    What the bus raises becomes one line on stderr; a traceback means a fault of the program.
    """
    try:
        app(prog_name="eventbus")
    except EventBusError as error:
        return console.fail(error)
    except BaseExceptionGroup as group:
        return console.fail_all(group)
    return 0
