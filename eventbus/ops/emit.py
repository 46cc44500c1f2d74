"""Emit one event from outside of any service, and tell who will get it."""

import asyncio
from dataclasses import dataclass

from eventbus.drivers.base import Driver, Receipt
from eventbus.drivers.choice import driver_of
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.errors import EventBusError, SettingsError
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
    durables: tuple[str, ...] | None
    """Empty: nobody listens, and a durable made later starts with new events. None: the server
    didn't say; the event is stored all the same."""


async def emit(event: Event, settings: Settings, options: EmitOptions) -> Emission:
    """Emit an event and return once it is stored (P1).

    Raises:
        SettingsError: The driver that is set reaches no other process.
        NotConnectedError: No server answered within ``connect_timeout``.
        EventBusError: As `EventService.start` and `EventService.emit`.
    """
    driver = driver_of(settings, SOURCE)
    if not driver.features.durable:
        raise SettingsError(
            f"driver '{settings.driver}' lives in one process, so nobody would get the event; "
            "set EVENTBUS_DRIVER=jetstream"
        )
    service = EventService(SOURCE, settings=settings, driver=driver)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            await service.start()
    except TimeoutError as exc:
        raise not_answering(settings, driver) from exc
    try:
        receipt = await service.emit(event, **options)
        durables = await _durables(driver, spec_of(type(event)).name)
    finally:
        await service.stop()
    return Emission(receipt, durables)


async def _durables(driver: Driver, name: str) -> tuple[str, ...] | None:
    if not isinstance(driver, JetStreamDriver):
        return None
    try:
        return await driver.admin.listeners_of(name)
    except EventBusError:  # who may emit needn't be allowed to look
        return None
