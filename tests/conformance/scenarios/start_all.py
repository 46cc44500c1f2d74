"""A new listener may start with all that is stored."""

from tests.conformance.stage import Made, Stage

HISTORY = ("1", "2", "3")


async def play(stage: Stage) -> None:
    async with stage.service("emitter") as emitter:
        await emitter.emit(Made(number=1))
        await emitter.emit(Made(number=2))

        events = stage.service()

        @events.subscribe(Made, start="all", concurrency=1)
        async def one(event: Made) -> None:
            stage.note(event.number)

        async with events:
            await emitter.emit(Made(number=3))
            await stage.until(len(HISTORY))
            await stage.quiet()
