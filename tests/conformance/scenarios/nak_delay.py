"""A failed attempt comes again after its delay, and others are handled meanwhile."""

from eventbus import Context, Retry
from tests.conformance.stage import Made, Stage

HISTORY = ("1 attempt 1", "2 attempt 1", "1 attempt 2", "waited")


async def play(stage: Stage) -> None:
    events = stage.service()
    began = stage.clock.monotonic()

    @events.subscribe(Made, concurrency=1, retry=Retry(delays=(0.8,)))
    async def one(event: Made, context: Context) -> None:
        stage.note(event.number, "attempt", context.attempt)
        if event.number == 1 and context.attempt == 1:
            raise LookupError

    async with events:
        await events.emit(Made(number=1))
        await events.emit(Made(number=2))
        await stage.until(3)
        if stage.clock.monotonic() - began >= 0.75:
            stage.note("waited")
        await stage.quiet()
