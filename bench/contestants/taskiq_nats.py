"""taskiq-nats: a task for each event on JetStream, and its receiver on a pull or push broker."""

import asyncio
import logging

from nats.js.api import ConsumerConfig
from taskiq.api import run_receiver_task
from taskiq_nats import PullBasedJetStreamBroker, PushBasedJetStreamBroker

from bench.load import STREAM, SUBJECT, Case, Meter, Result
from bench.peer import Handled, OrderPlaced, emitted, fill

__all__ = ("CASES",)

BATCH = 500
Broker = PullBasedJetStreamBroker | PushBasedJetStreamBroker
logging.getLogger("taskiq").setLevel(logging.ERROR)


def pull(url: str) -> Broker:
    """Return a broker that fetches batches."""
    return PullBasedJetStreamBroker(
        url,
        SUBJECT,
        STREAM,
        durable="bench",
        pull_consume_batch=BATCH,
        pull_consume_timeout=5.0,
    )


def push(url: str) -> Broker:
    """Return a broker that is pushed to."""
    settings = ConsumerConfig(name="bench", durable_name="bench", max_ack_pending=1000)
    return PushBasedJetStreamBroker(url, SUBJECT, STREAM, consumer_config=settings)


async def emit(url: str, events: int, width: int) -> Result:
    """Kick tasks with ``width`` in flight."""
    broker = pull(url)

    @broker.task(task_name="order.placed")
    async def take(event: OrderPlaced) -> None:
        """Never runs here."""

    await broker.startup()
    result = await emitted(take.kiq, events, width)
    await broker.shutdown()
    return result


async def consume(url: str, events: int, *, pushed: bool) -> Result:
    """Handle stored tasks; it validates their argument and acknowledges after the handler."""
    handled = Handled(events)
    # Where it is pushed to, the consumer begins with the broker, so another one fills the stream.
    filling, broker = pull(url), push(url) if pushed else pull(url)
    kicker = filling.task(task_name="order.placed")(_nothing)
    await filling.startup()
    await fill(kicker.kiq, events)
    if pushed:
        await filling.js.delete_consumer(STREAM, "bench")
    await filling.shutdown()

    @broker.task(task_name="order.placed")
    async def take(event: OrderPlaced) -> None:
        handled.take(event)

    async with asyncio.TaskGroup() as group:
        with Meter() as meter:
            await broker.startup()
            running = group.create_task(run_receiver_task(broker, max_async_tasks=BATCH))
            await handled.done.wait()
        await handled.acknowledged(url)
        running.cancel()
    await broker.shutdown()
    return meter.result(events)


async def _nothing(event: OrderPlaced) -> None:
    """Only names the task that is kicked."""


CASES: dict[str, Case] = {
    "emit_256": lambda url, events: emit(url, events, 256),
    "emit_1": lambda url, events: emit(url, events, 1),
    "consume": lambda url, events: consume(url, events, pushed=False),
    "consume_push": lambda url, events: consume(url, events, pushed=True),
}
