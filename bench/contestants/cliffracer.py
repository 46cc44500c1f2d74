"""cliffracer: events on JetStream without its envelope, a durable push listener and a pull one."""

from cliffracer import CliffracerService, ServiceConfig, StreamSpec, listener, validated_listener
from loguru import logger

from bench.load import STREAM, SUBJECT, Case, Meter, Result
from bench.peer import Handled, OrderPlaced, emitted, fill

__all__ = ("CASES",)

BATCH = 256
# It logs a line for each event; a service that is after speed turns that off.
logger.remove()
logger.disable("cliffracer")


def config(url: str) -> ServiceConfig:
    """Return its settings, with as much in flight as the others have."""
    return ServiceConfig(
        name="bench",
        nats_url=url,
        jetstream_enabled=True,
        jetstream_streams=[
            StreamSpec(name=STREAM, subjects=[SUBJECT]),
            StreamSpec(name="DLQ", subjects=["dlq.bench"]),
        ],
        jetstream_max_ack_pending=1000,
        jetstream_pull_batch=BATCH,
        health_listener=False,
        exit_on_closed=False,
        log_level="ERROR",
    )


class Emitting(CliffracerService):
    """A service that only emits."""

    async def emit(self, event: OrderPlaced) -> None:
        """Publish the fields; it waits for the PubAck."""
        await self.publish_event(SUBJECT, envelope=False, **event.model_dump())


class Pushed(CliffracerService):
    """A service with a push listener."""

    handled: Handled

    @validated_listener(SUBJECT, OrderPlaced, durable="bench")
    async def take(self, message: OrderPlaced) -> None:
        """Count."""
        self.handled.take(message)


class Pulled(CliffracerService):
    """A service with a pull listener."""

    handled: Handled

    @listener(SUBJECT, durable="bench", pull=True)
    async def take(self, message: OrderPlaced) -> None:
        """Count."""
        self.handled.take(message)


async def emit(url: str, events: int, width: int) -> Result:
    """Publish with ``width`` in flight."""
    service = Emitting(config(url))
    await service.start()
    try:
        return await emitted(service.emit, events, width)
    finally:
        await service.stop()


async def consume(url: str, events: int, listening: type[Pushed | Pulled]) -> Result:
    """Handle stored events; it validates them and acknowledges after the handler."""
    emitting = Emitting(config(url))
    await emitting.start()
    await fill(emitting.emit, events)
    await emitting.stop()
    service = listening(config(url))
    service.handled = handled = Handled(events)
    with Meter() as meter:
        await service.start()
        await handled.done.wait()
    await handled.acknowledged(url)
    await service.stop()
    return meter.result(events)


CASES: dict[str, Case] = {
    "emit_256": lambda url, events: emit(url, events, 256),
    "emit_1": lambda url, events: emit(url, events, 1),
    "consume": lambda url, events: consume(url, events, Pulled),
    "consume_push": lambda url, events: consume(url, events, Pushed),
}
