"""Which bus the cases test: ours, or the naive one that must fail every one of them."""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, cast

from eventbus import Envelope, EventService, codec
from eventbus.clock import SystemClock
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.settings import Settings
from tests.faults.harness.step import StepTaken

if TYPE_CHECKING:
    from tests.faults.naive import NaiveService

__all__ = ("NAIVE", "bus", "schedule")

NAIVE = os.environ.get("EVENTBUS_TEST_PROFILE") == "naive"


def bus(name: str, settings: Settings) -> EventService:
    """Return a service that isn't started; the naive one does what of a service a case uses."""
    if NAIVE:
        from tests.faults.naive import NaiveService

        return cast("EventService", NaiveService(name, settings=settings))
    return EventService(name, settings=settings)


async def schedule(events: EventService, due: Mapping[StepTaken, datetime]) -> None:
    """Have steps emitted at their times, not before, by a service that ends at once."""
    now = SystemClock().now()
    if NAIVE:
        async with cast("NaiveService", bus("clockwork", events.settings)) as naive:
            for step, at in due.items():
                naive.later(step, (at - now).total_seconds())
        return
    subjects = events.settings.subjects
    async with JetStreamDriver(events.settings, service="clockwork") as driver:
        for step, at in due.items():
            id = f"due-{step.mark}"
            envelope = Envelope.of(step, source="clockwork", time=now, id=id)
            message = codec.encode(envelope, subjects.event(envelope.name))
            await driver.schedule(message, at=at, holder=subjects.schedule("clockwork", id))
