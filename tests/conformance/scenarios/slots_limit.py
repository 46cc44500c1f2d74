"""No more events than a listener's concurrency are handled at once."""

import asyncio

from tests.conformance.stage import Made, Stage

HISTORY = ("most at once: 3", "handled: 7")


async def play(stage: Stage) -> None:
    events = stage.service()
    gate = asyncio.Event()
    running: set[int] = set()
    most, handled = 0, 0

    @events.subscribe(Made, concurrency=3)
    async def one(event: Made) -> None:
        nonlocal most, handled
        running.add(event.number)
        most = max(most, len(running))
        await gate.wait()
        await stage.clock.sleep(0.02)
        running.discard(event.number)
        handled += 1

    async with events:
        for number in range(7):
            await events.emit(Made(number=number))
        while len(running) < 3:
            await stage.wait(0.05)
        await stage.quiet()
        gate.set()
        while handled < 7:
            await stage.wait(0.05)
    stage.note("most at once:", most)
    stage.note("handled:", handled)
