"""Hand a listener what it has had before, in a process that runs its service meanwhile."""

from datetime import datetime

from eventbus.drivers.base import Start
from eventbus.service import EventService

__all__ = ("replay",)


async def replay(
    service: EventService,
    listener: str,
    start: Start,
    *,
    until: datetime | None = None,
    again: bool = False,
) -> int:
    """Run a service for as long as a replay takes; return how many events that was.

    Meanwhile it works as one more process of the service. As `EventService.replay` in all else.

    Raises:
        DeclarationError: There is no such listener, or nothing to replay from.
        EventBusError: The service can't start, or the server can't say what there is.
    """
    async with service:
        return await service.replay(listener, start, until=until, again=again)
