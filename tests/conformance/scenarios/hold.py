"""What a listener emits into a full stream waits, and is handled once there is room."""

import asyncio

from tests.conformance.stage import Made, Stage

BIG = "x" * 600_000
HISTORY = ("1 emits 2", "2 arrived")


async def play(stage: Stage) -> None:
    events = stage.service()
    gate = asyncio.Event()

    @events.subscribe(Made)
    async def one(event: Made) -> None:
        if event.number == 1:
            stage.note("1 emits 2")
            await events.emit(Made(number=2, padding=BIG))
        else:
            await gate.wait()
            stage.note(event.number, "arrived")

    async with events:
        await events.emit(Made(number=1, padding=BIG))
        await stage.until(1)
        gate.set()
        await stage.until(2)
        await stage.quiet()
