"""What the commands share that ask a server: a connection for one question, and ``--json``."""

import asyncio
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from eventbus.drivers.jetstream.driver import JetStreamDriver

__all__ = ("Json", "ask")

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def ask(question: "Callable[[JetStreamDriver], Awaitable[T]]") -> T:
    """Return the answer to a question that is put over a connection of its own.

    Raises:
        EventBusError: The server can't be reached, or what the question raises.
    """
    from eventbus.ops.connect import connected
    from eventbus.settings import Settings

    settings = Settings.load()

    async def run() -> T:
        async with connected(settings) as driver:
            return await question(driver)

    return asyncio.run(run())
