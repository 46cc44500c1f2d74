"""What runs beside the listeners of a process: the measuring of durables, and the janitor."""

from collections.abc import Callable, Sequence

from eventbus.clock import Clock
from eventbus.drivers.base import Driver
from eventbus.subscription import Subscription
from eventbus.telemetry.signals import Observer
from eventbus.worker.gauges import Gauges
from eventbus.worker.janitor import Janitor
from eventbus.worker.worker import Job

__all__ = ("upkeep",)


def upkeep(
    driver: Driver,
    subscriptions: Callable[[], Sequence[Subscription]],
    observe: Observer,
    clock: Clock,
) -> tuple[Job, ...]:
    """Return the jobs that a process with listeners runs beside them; none without listeners."""
    if not subscriptions():
        return ()
    gauges = Gauges(driver, subscriptions, observe, clock)
    if driver.room is None:
        return (gauges.run,)
    return (gauges.run, Janitor(driver.room, observe, clock).run)
