"""``eventbus store init``: the tables of outbox, inbox and event store."""

import typer

from eventbus.cli import console
from eventbus.cli.session import Json

__all__ = ("init", "store")

store = typer.Typer(
    no_args_is_help=True, help="Prepare the database of outbox, inbox and event store."
)


@store.callback()
def _root() -> None:
    """Keep ``init`` a command of its own, while it is the only one."""


@store.command()
def init(*, as_json: Json = False) -> None:
    """Create the tables that EVENTBUS_STORE_URL lacks; what is there stays as it is."""
    import asyncio

    from eventbus.ops import stores
    from eventbus.settings import Settings

    made = asyncio.run(stores.init(Settings.load()))
    if as_json:
        console.print_json({"created": list(made)})
    elif made:
        print(f"created {', '.join(made)}")
    else:
        print("all tables are there")
