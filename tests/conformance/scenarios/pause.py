"""A paused durable hands out nothing until its time; nothing is lost."""

from tests.conformance.stage import Made, Stage

HISTORY = ("1", "paused: nothing came", "2")


async def play(stage: Stage) -> None:
    events = stage.service()

    @events.subscribe(Made)
    async def one(event: Made) -> None:
        stage.note(event.number)

    async with events:
        await events.emit(Made(number=1))
        await stage.until(1)
        await stage.pause("app__one", 1.5)
        await events.emit(Made(number=2))
        await stage.wait(0.7)
        if len(stage.history) == 1:
            stage.note("paused: nothing came")
        await stage.until(3)
