"""A delayed event that is cancelled never comes; one that has fired can't be cancelled."""

from tests.conformance.stage import Made, Stage

HISTORY = ("cancelled: True", "2", "cancelled: False")


async def play(stage: Stage) -> None:
    events = stage.service()

    @events.subscribe(Made)
    async def one(event: Made) -> None:
        stage.note(event.number)

    async with events:
        first = await events.emit(Made(number=1), delay=2)
        second = await events.emit(Made(number=2), delay=1.2)
        stage.note("cancelled:", await events.cancel(first.scheduled))
        await stage.until(2)
        stage.note("cancelled:", await events.cancel(second.scheduled))
        await stage.wait(1.5)
