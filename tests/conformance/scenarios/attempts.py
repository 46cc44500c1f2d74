"""Attempts are counted on through short delays, and through long ones that are parked."""

from eventbus import Context, Retry
from tests.conformance.stage import Made, Stage

HISTORY = ("attempt 1", "attempt 2", "attempt 3", "attempt 4", "dead after 4")


async def play(stage: Stage) -> None:
    events = stage.service()

    @events.subscribe(Made, retry=Retry(attempts=4, delays=(0.2, 1.2, 0.2)))
    async def one(event: Made, context: Context) -> None:
        stage.note("attempt", context.attempt)
        raise LookupError

    async with events:
        await events.emit(Made())
        await stage.until(4)
        await stage.quiet()
    for letter in await stage.letters():
        stage.note("dead after", letter.headers["eventbus-dead-attempts"])
