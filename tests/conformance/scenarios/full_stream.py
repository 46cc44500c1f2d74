"""A stream full of unread events refuses new ones at once, and names who holds it."""

import asyncio

from eventbus import BackpressureError
from tests.conformance.stage import Made, Stage

BIG = "x" * 600_000
HISTORY = ("stored", "refused, held by app__one", "handled 1")


async def play(stage: Stage) -> None:
    events = stage.service()
    gate = asyncio.Event()

    @events.subscribe(Made)
    async def one(event: Made) -> None:
        await gate.wait()
        stage.note("handled", event.number)

    async with events:
        await events.emit(Made(number=1, padding=BIG))
        stage.note("stored")
        try:
            await events.emit(Made(number=2, padding=BIG))
        except BackpressureError as exc:
            stage.note("refused, held by", *exc.held_by)
        gate.set()
        await stage.until(3)
        await stage.quiet()
