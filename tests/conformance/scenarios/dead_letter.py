"""A dead letter keeps the event and says why; each listener has its own."""

from eventbus import Event, Reject
from tests.conformance.stage import Made, Stage

HISTORY = (
    "rejected in app by one, an event of thing.made",
    "invalid in app by one, an event of thing.made",
    "fine: 1",
)


async def play(stage: Stage) -> None:
    events = stage.service()
    fine: list[int] = []

    @events.subscribe(Made)
    async def one(event: Made) -> None:
        raise Reject("not ours")

    @events.subscribe("thing.*")
    async def two(event: Event) -> None:
        fine.append(1)

    async with events:
        await events.emit(Made())
        while len(await stage.letters()) < 1:
            await stage.wait(0.05)
        await stage.driver.publish(stage.message(b'{"number": "many"}', id="bad"))
        while len([1 for one in await stage.letters() if _of(one) == "one"]) < 2:
            await stage.wait(0.05)
        await stage.quiet()
    for letter in await stage.letters():
        if _of(letter) == "one":
            words = letter.headers
            reason, service = words["eventbus-dead-reason"], words["eventbus-dead-service"]
            stage.note(f"{reason} in {service} by one, an event of {words['ce-type']}")
    stage.note("fine:", len(fine))


def _of(letter: object) -> str:
    headers: dict[str, str] = getattr(letter, "headers", {})
    return headers["eventbus-dead-listener"]
