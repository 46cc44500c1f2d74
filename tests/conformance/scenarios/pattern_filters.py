"""``*`` stands for one token, ``>`` for the rest; a listener gets each event once."""

from eventbus import Event, UnknownEvent
from tests.conformance.stage import Made, Stage

HISTORY = (
    "all: shop.order.paid",
    "all: thing.broken",
    "all: thing.made",
    "deep: shop.order.paid",
    "one: thing.broken",
    "one: thing.made",
)


class Broken(Event, name="thing.broken"):
    """Another event of the same resource."""


class Paid(Event, name="shop.order.paid"):
    """An event with three tokens."""


async def play(stage: Stage) -> None:
    events = stage.service()
    seen: list[str] = []

    def listener(name: str, pattern: str) -> None:
        async def listen(event: UnknownEvent) -> None:
            kind = event.name if isinstance(event, UnknownEvent) else _name(event)
            seen.append(f"{name}: {kind}")

        events.subscribe(pattern, listen, name=name)

    listener("one", "thing.*")
    listener("deep", "shop.>")
    listener("all", ">")
    async with events:
        for event in (Made(), Broken(), Paid()):
            await events.emit(event)
        while len(seen) < len(HISTORY):
            await stage.wait(0.05)
        await stage.quiet()
    for one in sorted(seen):
        stage.note(one)


def _name(event: Event) -> str:
    return event.event_spec.name if event.event_spec is not None else "?"
