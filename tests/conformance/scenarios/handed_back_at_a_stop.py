"""What a service had in hand when it stopped is handled by the next one, as the same attempt."""

import asyncio

from eventbus import Context, EventService
from tests.conformance.stage import Made, Stage

HISTORY = ("first: attempt 1", "second: attempt 1")


async def play(stage: Stage) -> None:
    def service(name: str) -> EventService:
        events = stage.service()

        @events.subscribe(Made)
        async def one(event: Made, context: Context) -> None:
            stage.note(f"{name}: attempt", context.attempt)
            if name == "first":
                await asyncio.Event().wait()

        return events

    first = service("first")
    await first.start()
    await first.emit(Made())
    await stage.until(1)
    await first.stop(grace=0)
    async with service("second"):
        await stage.until(2)
        await stage.quiet()
