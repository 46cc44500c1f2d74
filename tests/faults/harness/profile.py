"""Which bus the cases test: ours, or the naive one that must fail every one of them."""

import os
from typing import cast

from eventbus import EventService
from eventbus.settings import Settings

__all__ = ("NAIVE", "bus")

NAIVE = os.environ.get("EVENTBUS_TEST_PROFILE") == "naive"


def bus(name: str, settings: Settings) -> EventService:
    """Return a service that isn't started; the naive one does what of a service a case uses."""
    if NAIVE:
        from tests.faults.naive import NaiveService

        return cast("EventService", NaiveService(name, settings=settings))
    return EventService(name, settings=settings)
