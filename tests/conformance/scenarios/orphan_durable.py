"""A durable that nobody declares any more is told, and goes on holding its events."""

from eventbus.drivers.base import TopologyChanged
from tests.conformance.stage import Made, Stage

HISTORY = ("told: app__old, held: 1",)


async def play(stage: Stage) -> None:
    before = stage.service()

    @before.subscribe(Made)
    async def old(event: Made) -> None: ...

    async with before:
        pass
    told: list[str] = []

    def observe(happened: object) -> None:
        if isinstance(happened, TopologyChanged) and "nobody declares" in happened.change:
            told.append(happened.thing)

    after = stage.service(observer=observe)

    @after.subscribe(Made)
    async def new(event: Made) -> None: ...

    async with after:
        await after.emit(Made())
        await stage.quiet()
        state = await stage.driver.measure("app__old")
    stage.note("told:", f"{', '.join(told)},", "held:", "?" if state is None else state.unread)
