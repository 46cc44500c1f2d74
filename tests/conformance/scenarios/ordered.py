"""An ordered listener handles each key's events in their order, also where one is tried again."""

from eventbus import Context, Retry
from tests.conformance.stage import Made, Stage

HISTORY = ("b1", "b2", "a1 failed", "a1", "a2", "a3")


async def play(stage: Stage) -> None:
    events = stage.service()
    failed: list[str] = []
    seen: list[str] = []

    @events.subscribe(Made, ordered=True, retry=Retry(delays=(1,)))
    async def one(event: Made, context: Context) -> None:
        name = f"{event.key}{event.number}"
        if name == "a1" and context.attempt == 1:
            failed.append(name)
            raise LookupError
        seen.append(name)

    async with events:
        for number in (1, 2, 3):
            await events.emit(Made(key="a", number=number))
            if number < 3:
                await events.emit(Made(key="b", number=number))
        while len(seen) < 5:
            await stage.wait(0.05)
        await stage.quiet()
    of_b = [one for one in seen if one[0] == "b"]
    of_a = [one for one in seen if one[0] == "a"]
    for words in (*of_b, *(f"{one} failed" for one in failed), *of_a):
        stage.note(words)
