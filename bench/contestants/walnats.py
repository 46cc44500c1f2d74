"""walnats: ``emit(sync=True)``, which waits for the PubAck, and an actor that polls batches."""

import asyncio
from dataclasses import dataclass

import walnats

from bench.load import SUBJECT, Case, Meter, Result
from bench.peer import Handled, OrderPlaced, emitted, fill

__all__ = ("CASES",)

BATCH = 500


@dataclass(frozen=True)
class Json:
    """Its own pydantic serializer calls what pydantic 2 no longer has."""

    def encode(self, message: OrderPlaced) -> bytes:
        """Return the event as JSON."""
        return message.model_dump_json().encode()

    def decode(self, data: bytes) -> OrderPlaced:
        """Return the validated event."""
        return OrderPlaced.model_validate_json(data)


EVENT = walnats.Event(SUBJECT, OrderPlaced, serializer=Json())


async def emit(url: str, events: int, width: int) -> Result:
    """Emit with ``width`` in flight."""
    async with walnats.Events(EVENT).connect(url) as bus:
        await bus.register()
        return await emitted(lambda event: bus.emit(EVENT, event, sync=True), events, width)


async def consume(url: str, events: int) -> Result:
    """Handle stored events with an actor, in batches, without the pulse of long jobs."""
    handled = Handled(events)

    async def take(event: OrderPlaced) -> None:
        handled.take(event)

    actor = walnats.Actor("bench", EVENT, take, max_jobs=BATCH, pulse=False)
    async with (
        walnats.Events(EVENT).connect(url) as bus,
        walnats.Actors(actor).connect(url) as actors,
        asyncio.TaskGroup() as group,
    ):
        await bus.register()
        # Its streams keep only what an actor has registered for.
        await actors.register()
        await fill(lambda event: bus.emit(EVENT, event, sync=True), events)
        with Meter() as meter:
            listening = group.create_task(actors.listen(batch=BATCH, max_jobs=BATCH))
            await handled.done.wait()
        await handled.acknowledged(url)
        listening.cancel()
    return meter.result(events)


CASES: dict[str, Case] = {
    "emit_256": lambda url, events: emit(url, events, 256),
    "emit_1": lambda url, events: emit(url, events, 1),
    "consume": consume,
}
