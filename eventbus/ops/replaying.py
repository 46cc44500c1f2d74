"""Hand a listener what it has had before, in a process that runs its service meanwhile."""

import asyncio
from datetime import datetime

from eventbus.clock import SystemClock
from eventbus.declaration import check_replay
from eventbus.drivers.base import Start
from eventbus.runner import CLOSE_TIME, Stop
from eventbus.service import EventService

__all__ = ("replay",)


async def replay(
    service: EventService,
    listener: str,
    start: Start,
    stop: Stop,
    *,
    until: datetime | None = None,
    again: bool = False,
) -> int | None:
    """Run a service for as long as a replay takes; return how many events that was.

    Meanwhile it works as one more process of the service. The order to stop ends it as it ends
    `eventbus.runner.run`: what runs may finish, the rest goes back, and the replay's durable is
    removed. Returns None where the order came before the service had started.

    Raises:
        DeclarationError: The replay makes no sense.
        ExceptionGroup: There is no such listener, the service can't start, the server can't say
            what there is, or the order came before all were handled.
    """
    check_replay(listener, start, until, again=again, now=SystemClock().now())
    grace = service.settings.grace
    grace -= min(grace / 2, CLOSE_TIME)
    try:
        await stop.before(service.start())
        if stop.asked:
            return None
        async with asyncio.TaskGroup() as group:
            working = group.create_task(service.replay(listener, start, until=until, again=again))
            stopping = group.create_task(stop.wait())
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not working.done():
                await service.stop(grace)
        return working.result()
    finally:
        await service.stop(grace)
