"""FastStream's NATS broker: publish with a PubAck, a push subscriber and a pull one."""

from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import AckPolicy, ConsumerConfig

from bench.load import STREAM, SUBJECT, Case, Meter, Result
from bench.peer import Handled, OrderPlaced, add_stream, emitted, fill

__all__ = ("CASES",)

BATCH = 500


class Emitter:
    """A connected broker that only publishes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.broker = NatsBroker(url, logger=None)

    async def __aenter__(self) -> "Emitter":
        """Make the stream and connect."""
        await add_stream(self.url)
        await self.broker.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.broker.stop()

    async def emit(self, event: OrderPlaced) -> None:
        """Publish to the stream; it serializes the model itself."""
        await self.broker.publish(event, SUBJECT, stream=STREAM, timeout=30)


async def emit(url: str, events: int, width: int) -> Result:
    """Publish with ``width`` in flight."""
    async with Emitter(url) as emitter:
        return await emitted(emitter.emit, events, width)


async def consume(url: str, events: int, *, pull: bool) -> Result:
    """Handle stored events; the broker validates them and acknowledges after the handler."""
    async with Emitter(url) as emitter:
        await fill(emitter.emit, events)
    handled = Handled(events)
    broker = NatsBroker(url, logger=None)
    subscriber = broker.subscriber(
        SUBJECT,
        stream=JStream(STREAM, declare=False),
        # Its queue names the durable of a push subscriber.
        **({"durable": "bench", "pull_sub": PullSub(BATCH)} if pull else {"queue": "bench"}),
        config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1000),
    )

    @subscriber
    async def take(event: OrderPlaced) -> None:
        handled.take(event)

    with Meter() as meter:
        await broker.start()
        await handled.done.wait()
    await handled.acknowledged(url)
    await broker.stop()
    return meter.result(events)


CASES: dict[str, Case] = {
    "emit_256": lambda url, events: emit(url, events, 256),
    "emit_1": lambda url, events: emit(url, events, 1),
    "consume": lambda url, events: consume(url, events, pull=True),
    "consume_push": lambda url, events: consume(url, events, pull=False),
}
