"""A redriven event comes to the listener that failed, and to no other, as a first attempt."""

from eventbus import Context, Retry
from tests.conformance.stage import Made, Stage

HISTORY = ("one: attempt 1", "two: attempt 1", "one: attempt 1")


async def play(stage: Stage) -> None:
    events = stage.service()
    mended: list[bool] = []

    @events.subscribe(Made, retry=Retry(attempts=1))
    async def one(event: Made, context: Context) -> None:
        stage.note("one: attempt", context.attempt)
        if not mended:
            raise LookupError

    @events.subscribe(Made)
    async def two(event: Made, context: Context) -> None:
        while not stage.history:
            await stage.clock.sleep(0.01)
        stage.note("two: attempt", context.attempt)

    async with events:
        await events.emit(Made())
        await stage.until(2)
        while not (letters := await stage.letters()):
            await stage.wait(0.05)
        mended.append(True)
        await stage.redrive(letters[0], "one")
        await stage.until(3)
        await stage.quiet()
