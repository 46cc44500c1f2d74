"""The listeners that have a durable: how far they are, and pausing them in all processes at once."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from eventbus.clock import Clock, SystemClock
from eventbus.drivers.jetstream.admin import ConsumerView
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.errors import TopologyError, did_you_mean

__all__ = ("ALWAYS", "ListenerView", "listed", "pause", "resume")

ALWAYS = datetime(9999, 1, 1, tzinfo=UTC)
"""When a pause ends that somebody has to end: the last year that the server can write."""


@dataclass(frozen=True, slots=True)
class ListenerView:
    """How far a listener is, in all its durables.

    It has one, or one for each priority of its events, or one for each process that is to get
    every event.
    """

    service: str
    listener: str
    durables: tuple[ConsumerView, ...]

    @property
    def pending(self) -> int:
        """How many aren't handed out.

        An event of a priority that has a durable of its own is counted there, and by the
        listener's other durable, which will pass it over.
        """
        return sum(one.pending for one in self.durables)

    @property
    def ack_pending(self) -> int:
        """How many are handed out and not settled."""
        return sum(one.ack_pending for one in self.durables)

    @property
    def redelivered(self) -> int:
        """How many of those were handed out before."""
        return sum(one.redelivered for one in self.durables)

    @property
    def waiting(self) -> int:
        """Pull requests that wait for events; 0 where nobody works."""
        return sum(one.waiting for one in self.durables)

    @property
    def paused(self) -> bool:
        """Whether nothing is handed out to it."""
        return all(one.paused for one in self.durables)


async def listed(driver: JetStreamDriver) -> tuple[ListenerView, ...]:
    """Return how far each listener is, by service and listener.

    Raises:
        DriverError: The server can't say now.
    """
    views = [one for one in await driver.admin.consumers() if one.service]
    by_name = {one.durable: one for one in views}
    found: dict[tuple[str, str], list[ConsumerView]] = {}
    for one in views:
        whose = by_name.get(one.beside, one)
        found.setdefault((whose.service, whose.listener), []).append(one)
    return tuple(ListenerView(*names, tuple(ones)) for names, ones in sorted(found.items()))


async def pause(
    driver: JetStreamDriver,
    service: str,
    listener: str,
    *,
    seconds: float | None = None,
    clock: Clock | None = None,
) -> datetime | None:
    """Have the server hand out nothing to a listener, in whatever process; events wait.

    All its durables are paused; the name of one that takes the events of one priority, such as
    ``note-high``, stands for that one alone. What is in hand is finished. Its processes are as
    ready as before. The pause ends by itself after so many seconds, or with `resume`; a later
    pause takes its place.

    Returns:
        When it ends; None for a pause that doesn't by itself.

    Raises:
        TopologyError: There is no such listener.
        DriverError: The server can't do it now; some of its durables may be paused.
    """
    found = await _found(driver, service, listener)
    clock = clock or SystemClock()
    until = None if seconds is None else clock.now() + timedelta(seconds=seconds)
    for one in found:
        await driver.controls.pause(one.durable, until or ALWAYS)
    return until


async def resume(driver: JetStreamDriver, service: str, listener: str) -> bool:
    """End a listener's pause, in all its durables; return whether one was paused.

    Raises as `pause` does.
    """
    found = await _found(driver, service, listener)
    for one in found:
        await driver.controls.resume(one.durable)
    return any(one.paused for one in found)


async def _found(driver: JetStreamDriver, service: str, listener: str) -> tuple[ConsumerView, ...]:
    views = await listed(driver)
    for view in views:
        if (view.service, view.listener) == (service, listener):
            return view.durables
    apart = tuple(
        one
        for view in views
        for one in view.durables
        if (one.service, one.listener) == (service, listener)
    )
    if apart:
        return apart
    hint = did_you_mean(
        f"{service} {listener}", [f"{one.service} {one.listener}" for one in views]
    )
    raise TopologyError(
        thing=f"listener '{service} {listener}'",
        problem="has no durable",
        remedy=f"'eventbus listener list' names those that have{hint}",
    )
