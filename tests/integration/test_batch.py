"""Batches on a real server: lists of events, of which some fail, and a stop in between."""

import asyncio
from typing import Any

import pytest

from eventbus import Batch, BatchContext, EventService, Retry
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled
from tests.integration.shop import OrderPlaced
from tests.waiting import eventually

pytestmark = [pytest.mark.nats]

TOTAL = 120


class Store:
    """A listener of batches, and how its deliveries ended."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.stored: list[str] = []
        self.settled: list[Settled] = []
        self.waits: asyncio.Event | None = None

    async def save(self, events: list[OrderPlaced], context: BatchContext[OrderPlaced]) -> None:
        self.sizes.append(len(events))
        if self.waits is not None:
            await self.waits.wait()
        for event in events:
            if event.amount == 0:
                context.fail(event, ValueError("nothing was ordered"))
            else:
                self.stored.append(event.order_id)

    def observe(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            self.settled.append(happened)

    def ended(self, outcome: Outcome) -> int:
        return sum(one.outcome is outcome for one in self.settled)


def service(server: NatsServer, store: Store, **options: Any) -> EventService:
    events = EventService("shop", settings=Settings(nats_url=server.url, grace=2))
    retry = Retry(attempts=2, start=0.05, jitter="none")
    batch = Batch(max=20, max_wait=1)
    events.subscribe(OrderPlaced, store.save, name="save", batch=batch, retry=retry, **options)
    events.observe(store.observe)
    return events


async def test_events_come_in_lists_and_those_that_fail_come_back_alone(
    nats_server: NatsServer,
) -> None:
    store = Store()
    async with service(nats_server, store) as events:
        amounts = [0 if one % 40 == 0 else 1 for one in range(TOTAL)]
        await events.emit_many(
            [OrderPlaced(order_id=f"o-{one}", amount=two) for one, two in enumerate(amounts)]
        )

        async def done() -> bool:
            return len(store.stored) >= TOTAL - 3 and store.ended(Outcome.DEAD) == 3

        await eventually(done, 30)

    assert len(store.stored) == len(set(store.stored)) == TOTAL - 3
    assert store.ended(Outcome.RETRY) == 3
    assert max(store.sizes) == 20
    assert len(store.sizes) < TOTAL / 4


async def test_a_batch_that_a_stop_cuts_off_is_handled_by_the_next_process(
    nats_server: NatsServer,
) -> None:
    store = Store()
    store.waits = asyncio.Event()
    events = service(nats_server, store)
    await events.start()
    await events.emit_many([OrderPlaced(order_id=f"o-{one}") for one in range(20)])

    async def running() -> bool:
        return bool(store.sizes)

    await eventually(running, 20)
    await events.stop(grace=1)
    assert store.settled == []

    store.waits = None
    async with service(nats_server, store):

        async def done() -> bool:
            return store.ended(Outcome.OK) == 20

        await eventually(done, 20)

    assert sorted(store.stored) == sorted(f"o-{one}" for one in range(20))
    assert {one.attempt for one in store.settled} == {1}
