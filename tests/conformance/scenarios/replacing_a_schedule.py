"""What is scheduled where something waits takes its place."""

from tests.conformance.stage import Made, Stage

HISTORY = ("2",)


async def play(stage: Stage) -> None:
    events = stage.service()

    @events.subscribe(Made)
    async def one(event: Made) -> None:
        stage.note(event.number)

    async with events:
        holder = stage.settings.subjects.schedule("app", "alarm")
        for number in (1, 2):
            message = stage.message(b'{"number": %d}' % number, id=f"id-{number}")
            at = stage.clock.now() + stage.seconds(1.2)
            await stage.driver.schedule(message, at=at, holder=holder)
        await stage.until(1)
        await stage.wait(1.5)
