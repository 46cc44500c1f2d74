"""Hand-written nats-py, as its documentation shows it: validate, dump, six headers, publish."""

import asyncio
import time
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from pydantic import BaseModel, ConfigDict

from bench.load import STREAM, SUBJECT, Case, Meter, Result, in_flight, payload

__all__ = ("CASES", "OrderPlaced")

BATCH = 500


class OrderPlaced(BaseModel):
    """The payload."""

    model_config = ConfigDict(extra="forbid")

    order_id: str
    customer_id: str
    email: str
    amount: float
    currency: str
    items: list[str]
    express: bool
    address: str
    note: str | None
    at_ns: int


async def _connect(url: str) -> tuple[Client, JetStreamContext]:
    client = await nats.connect(url)
    stream = client.jetstream(publish_async_max_pending=100_000)
    await stream.add_stream(StreamConfig(name=STREAM, subjects=["events.>"]))
    return client, stream


def _headers() -> dict[str, str]:
    id = str(uuid4())
    return {
        "Nats-Msg-Id": id,
        "ce-id": id,
        "ce-type": "order.placed",
        "ce-source": "bench",
        "ce-correlationid": id,
        "content-type": "application/json",
    }


def _body(number: int) -> bytes:
    fields = payload(number)
    fields["at_ns"] = time.monotonic_ns()
    return OrderPlaced.model_validate(fields).model_dump_json().encode()


async def emit(url: str, events: int, width: int) -> Result:
    """Publish with ``width`` in flight."""
    client, stream = await _connect(url)
    latencies: list[float] = []

    async def one(number: int) -> None:
        began = time.perf_counter()
        await stream.publish(SUBJECT, _body(number), headers=_headers())
        latencies.append((time.perf_counter() - began) * 1e6)

    await in_flight(one, min(1000, events), width)
    latencies.clear()
    with Meter() as meter:
        await in_flight(one, events, width)
    await client.close()
    return meter.result(events, tuple(latencies))


async def emit_many(url: str, events: int) -> Result:
    """Publish all with ``publish_async``, then wait for all answers."""
    client, stream = await _connect(url)

    async def all_of(count: int) -> None:
        futures = [
            await stream.publish_async(SUBJECT, _body(number), headers=_headers())
            for number in range(count)
        ]
        await asyncio.gather(*futures)

    await all_of(min(1000, events))
    with Meter() as meter:
        await all_of(events)
    await client.close()
    return meter.result(events)


async def _handle(event: OrderPlaced) -> None:
    """Take an event, as an async listener that has nothing to wait for."""


async def _fill(stream: JetStreamContext, events: int) -> None:
    done = [
        await stream.publish_async(SUBJECT, _body(number), headers=_headers())
        for number in range(events)
    ]
    await asyncio.gather(*done)


async def fetch(url: str, events: int) -> Result:
    """Handle stored events from ``fetch(500)``, each validated and acknowledged."""
    client, stream = await _connect(url)
    await _fill(stream, events)
    consumer = await stream.pull_subscribe(SUBJECT, durable="bench")
    handled = 0
    with Meter() as meter:
        while handled < events:
            for message in await consumer.fetch(min(BATCH, events - handled)):
                await _take(message)
                handled += 1
        await client.flush()
    await client.close()
    return meter.result(events)


async def push(url: str, events: int) -> Result:
    """Handle stored events from a push consumer, each validated and acknowledged."""
    client, stream = await _connect(url)
    await _fill(stream, events)
    handled, done = 0, asyncio.Event()

    async def take(message: Msg) -> None:
        nonlocal handled
        await _take(message)
        handled += 1
        if handled == events:
            done.set()

    with Meter() as meter:
        await stream.subscribe(SUBJECT, cb=take, durable="bench", manual_ack=True)
        await done.wait()
        await client.flush()
    await client.close()
    return meter.result(events)


async def _take(message: Msg) -> None:
    event = OrderPlaced.model_validate_json(message.data)
    assert message.headers is not None, "published with headers"
    if message.headers["ce-type"] == "order.placed":
        await _handle(event)
    await message.ack()


async def latency(url: str, events: int) -> Result:
    """Emit 500 a second and handle them by push in the same process: from emit to handled."""
    client, stream = await _connect(url)
    late: list[float] = []
    done = asyncio.Event()

    async def take(message: Msg) -> None:
        event = OrderPlaced.model_validate_json(message.data)
        late.append((time.monotonic_ns() - event.at_ns) / 1e3)
        await message.ack()
        if len(late) == events:
            done.set()

    await stream.subscribe(SUBJECT, cb=take, durable="bench", manual_ack=True)
    with Meter() as meter:
        begun = time.monotonic()
        for number in range(events):
            await asyncio.sleep(max(0.0, begun + number / 500 - time.monotonic()))
            await stream.publish(SUBJECT, _body(number), headers=_headers())
        await done.wait()
    await client.close()
    return meter.result(events, tuple(late))


CASES: dict[str, Case] = {
    "emit_256": lambda url, events: emit(url, events, 256),
    "emit_1": lambda url, events: emit(url, events, 1),
    "emit_many": emit_many,
    "consume": fetch,
    "consume_push": push,
    "latency": latency,
}
