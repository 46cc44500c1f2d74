"""Emit one event from outside of any service, and tell who will get it."""

import asyncio
from dataclasses import dataclass

from eventbus.drivers.base import Receipt
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.event import Event, spec_of
from eventbus.middleware.base import EmitOptions
from eventbus.ops.connect import not_answering
from eventbus.service import EventService
from eventbus.settings import Settings

__all__ = ("Emission", "emit")

SOURCE = "cli"
"""What stands in ``ce-source`` of events that no service emitted."""


@dataclass(frozen=True, slots=True)
class Emission:
    """A stored event, and the durables that it is handed to."""

    receipt: Receipt
    durables: tuple[str, ...]
    """None: nobody listens, and a durable made later starts with new events."""


async def emit(event: Event, settings: Settings, options: EmitOptions) -> Emission:
    """Emit an event and return once it is stored (P1).

    Raises:
        NotConnectedError: No server answered within ``connect_timeout``.
        EventBusError: As `EventService.start` and `EventService.emit`.
    """
    driver = JetStreamDriver(settings, service=SOURCE)
    service = EventService(SOURCE, settings=settings, driver=driver)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            await service.start()
    except TimeoutError as exc:
        raise not_answering(settings, driver) from exc
    try:
        receipt = await service.emit(event, **options)
        durables = await driver.admin.listeners_of(spec_of(type(event)).name)
    finally:
        await service.stop()
    return Emission(receipt, durables)
