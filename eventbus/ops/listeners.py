"""The listeners that have a durable: how far they are, and pausing them in all processes at once."""

from datetime import UTC, datetime, timedelta

from eventbus.clock import Clock, SystemClock
from eventbus.drivers.jetstream.admin import ConsumerView
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.errors import TopologyError, did_you_mean

__all__ = ("ALWAYS", "listed", "pause", "resume")

ALWAYS = datetime(9999, 1, 1, tzinfo=UTC)
"""When a pause ends that somebody has to end: the last year that the server can write."""


async def listed(driver: JetStreamDriver) -> tuple[ConsumerView, ...]:
    """Return how far each listener's durable is, by service and listener.

    Raises:
        DriverError: The server can't say now.
    """
    views = [one for one in await driver.admin.consumers() if one.service]
    return tuple(sorted(views, key=lambda one: (one.service, one.listener)))


async def pause(
    driver: JetStreamDriver,
    service: str,
    listener: str,
    *,
    seconds: float | None = None,
    clock: Clock | None = None,
) -> datetime | None:
    """Have the server hand out nothing to a listener, in whatever process; events wait.

    What is in hand is finished. Its processes are as ready as before. The pause ends by itself
    after so many seconds, or with `resume`; a later pause takes its place.

    Returns:
        When it ends; None for a pause that doesn't by itself.

    Raises:
        TopologyError: There is no such listener.
        DriverError: The server can't do it now.
    """
    found = await _found(driver, service, listener)
    clock = clock or SystemClock()
    until = None if seconds is None else clock.now() + timedelta(seconds=seconds)
    await driver.controls.pause(found.durable, until or ALWAYS)
    return until


async def resume(driver: JetStreamDriver, service: str, listener: str) -> bool:
    """End a listener's pause; return whether it was paused.

    Raises as `pause` does.
    """
    found = await _found(driver, service, listener)
    await driver.controls.resume(found.durable)
    return found.paused


async def _found(driver: JetStreamDriver, service: str, listener: str) -> ConsumerView:
    views = await listed(driver)
    for one in views:
        if (one.service, one.listener) == (service, listener):
            return one
    hint = did_you_mean(
        f"{service} {listener}", [f"{one.service} {one.listener}" for one in views]
    )
    raise TopologyError(
        thing=f"listener '{service} {listener}'",
        problem="has no durable",
        remedy=f"'eventbus listener list' names those that have{hint}",
    )
