"""``eventbus store``: the tables of outbox, inbox and event store, and what the latter holds."""

import typer

from eventbus.cli import console
from eventbus.cli.session import Json

__all__ = ("init", "rebuild", "store")

store = typer.Typer(
    no_args_is_help=True, help="Prepare the database of outbox, inbox and event store."
)


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


@store.command()
def rebuild(*, as_json: Json = False) -> None:
    """Record what the stream still holds and the event store lacks; running it twice is safe."""
    import asyncio

    from eventbus.ops import stores
    from eventbus.settings import Settings

    read, missing = asyncio.run(stores.rebuild(Settings.load()))
    if as_json:
        console.print_json({"read": read, "recorded": missing})
    else:
        print(f"read {read} events, {missing} of them were missing")
