"""`Postponed`: what may be done to the delayed events of a service, by the driver that keeps them."""

from datetime import datetime

from eventbus.agenda import Agenda
from eventbus.drivers.receipt import Scheduled
from eventbus.duration import Duration
from eventbus.enveloping import due_of
from eventbus.routing import Publishing
from eventbus.telemetry.signals import Cancelled

__all__ = ("Postponed",)


class Postponed:
    """The delayed events of one service."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing

    async def cancel(self, scheduled: Scheduled | str | None) -> bool:
        """Have a delayed event never fire; False where it is too late.

        Raises:
            TypeError: It names no event.
            UnsupportedError: The driver has no schedules.
            DriverError: Whether it is cancelled isn't known.
        """
        if scheduled is None:
            return False
        one = self._named(scheduled)
        cancelled = await self._agenda_of(one).cancel(one.service, one.id)
        if cancelled:
            self._publishing.observe(Cancelled(one.id, one.service))
        return cancelled

    async def reschedule(
        self,
        scheduled: Scheduled | str | None,
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
    ) -> Scheduled | None:
        """Have a delayed event fire at another time; None where it is too late.

        Raises:
            TypeError, ValueError: No time is given, two are, or what is given is none.
            UnsupportedError: The driver has no schedules.
            DriverError: Whether it is rescheduled isn't known.
        """
        due = due_of(delay, at, self._publishing.clock.now())
        if due is None:
            raise TypeError("reschedule() takes delay= or at=")
        if scheduled is None:
            return None
        one = self._named(scheduled)
        return await self._agenda_of(one).move(one.service, one.id, due)

    def _named(self, scheduled: Scheduled | str) -> Scheduled:
        if isinstance(scheduled, Scheduled):
            return scheduled
        if not isinstance(scheduled, str):
            raise TypeError(
                f"{scheduled!r} names no delayed event; give its receipt's `scheduled`, or its id"
            )
        publishing = self._publishing
        return Scheduled(scheduled, publishing.source, publishing.clock.now())

    def _agenda_of(self, scheduled: Scheduled) -> Agenda:
        """Return the agenda of the driver that keeps an event; by default the service's."""
        publishing = self._publishing
        for route in publishing.named.values():
            if route.driver.name == scheduled.driver:
                return Agenda(route.driver, route.subjects)
        return Agenda(publishing.driver, publishing.subjects)
