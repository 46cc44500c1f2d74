"""A delayed event is handled after its delay, and what is emitted later may come first."""

from tests.conformance.stage import Made, Stage

HISTORY = ("emitted both", "2", "1", "in time")


async def play(stage: Stage) -> None:
    events = stage.service()

    @events.subscribe(Made)
    async def one(event: Made) -> None:
        stage.note(event.number)

    async with events:
        began = stage.clock.now()
        await events.emit(Made(number=1), delay=1.5)
        stage.note("emitted both")
        await events.emit(Made(number=2))
        await stage.until(3)
        if stage.clock.now() - began >= stage.seconds(1.4):
            stage.note("in time")
        await stage.quiet()
