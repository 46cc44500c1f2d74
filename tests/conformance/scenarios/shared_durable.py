"""Processes of one service share its events: each is handled once."""

import asyncio

from eventbus import EventService
from tests.conformance.stage import Made, Stage

HISTORY = ("handled: 0 1 2 3", "by: 2 processes")


async def play(stage: Stage) -> None:
    handled: list[int] = []
    by: set[str] = set()
    gate = asyncio.Event()

    def service(name: str) -> EventService:
        events = stage.service()

        @events.subscribe(Made, concurrency=2)
        async def one(event: Made) -> None:
            by.add(name)
            await gate.wait()
            handled.append(event.number)

        return events

    async with service("first") as events, service("second"):
        for number in range(4):
            await events.emit(Made(number=number))
        while len(by) < 2:
            await stage.wait(0.05)
        gate.set()
        while len(handled) < 4:
            await stage.wait(0.05)
        await stage.quiet()
    stage.note("handled:", *sorted(handled))
    stage.note("by:", len(by), "processes")
