"""Connect for one question or one command: give up soon, and say what to do."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from eventbus.drivers.base import Driver
from eventbus.drivers.jetstream.admin import Admin
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.errors import NotConnectedError
from eventbus.settings import Settings

__all__ = ("connected", "not_answering", "reading")


@asynccontextmanager
async def reading(settings: Settings) -> AsyncGenerator[Admin]:
    """Look at the streams and durables of a namespace; nothing is created or changed.

    Raises as `connected` does.
    """
    async with connected(settings) as driver:
        yield driver.admin


@asynccontextmanager
async def connected(settings: Settings) -> AsyncGenerator[JetStreamDriver]:
    """Work on what a namespace holds; no stream or durable is created or changed.

    Raises:
        NotConnectedError: No server answered within ``connect_timeout``.
        EventBusError: It refuses us, or isn't one the bus can work with.
    """
    driver = JetStreamDriver(settings.model_copy(update={"provision": "off"}), service="ops")
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await stack.enter_async_context(driver)
        except TimeoutError as exc:
            raise not_answering(settings, driver) from exc
        yield driver


def not_answering(settings: Settings, driver: Driver) -> NotConnectedError:
    """Return the error for a server that didn't let us in in time."""
    problem = "; ".join(driver.status().problems) or "no answer"
    return NotConnectedError(
        f"no server within {settings.connect_timeout:g} s ({problem}); "
        "start one with 'eventbus dev', or set EVENTBUS_NATS_URL to yours"
    )
