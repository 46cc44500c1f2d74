"""Order by key, through retries and from one process of a service to the next."""

import asyncio
import random
from collections import defaultdict

import pytest

from eventbus import Event, EventService, Retry, Settings
from eventbus.embedded import NatsServer
from tests.faults.harness.pace import patience

pytestmark = pytest.mark.nats
KEYS, ROUNDS = 20, 30


class BoxMoved(Event, name="box.moved", key="box"):
    box: str
    step: int


class Ledger:
    """What was handled, in the order it was."""

    def __init__(self, failures: random.Random) -> None:
        self.steps: dict[str, list[int]] = defaultdict(list)
        self.complete = asyncio.Event()
        self._failures = failures

    async def move(self, event: BoxMoved) -> None:
        if self._failures.random() < 0.1:
            raise ConnectionError("the crane is busy")
        await asyncio.sleep(0)
        self.steps[event.box].append(event.step)
        if sum(len(set(steps)) for steps in self.steps.values()) == KEYS * ROUNDS:
            self.complete.set()

    def service(self, url: str) -> EventService:
        events = EventService("crane", settings=Settings(nats_url=url, schemas=()))
        events.subscribe(
            BoxMoved,
            self.move,
            ordered=True,
            ack_wait=2,
            retry=Retry(attempts=50, start=0.01, cap=0.05),
        )
        return events


async def test_the_events_of_a_key_stay_in_order_through_retries_and_a_handover(
    nats_server: NatsServer,
) -> None:
    ledger = Ledger(random.Random(7))
    first, second = ledger.service(nats_server.url), ledger.service(nats_server.url)
    shop = EventService("shop", settings=Settings(nats_url=nats_server.url, schemas=()))

    async with shop, second:
        await first.start()
        for step in range(ROUNDS):
            boxes = [BoxMoved(box=f"b-{number}", step=step) for number in range(KEYS)]
            await shop.emit_many(boxes)
            if step == ROUNDS // 2:
                await first.stop(grace=1)
        async with asyncio.timeout(15 * patience()):
            await ledger.complete.wait()

    in_order = list(range(ROUNDS))
    firsts = {box: list(dict.fromkeys(steps)) for box, steps in ledger.steps.items()}
    assert firsts == {f"b-{number}": in_order for number in range(KEYS)}


async def test_after_a_restart_of_the_server_no_key_waits_for_a_run_of_another_one(
    nats_server: NatsServer,
) -> None:
    begun, go, other = asyncio.Event(), asyncio.Event(), asyncio.Event()
    settings = Settings(nats_url=nats_server.url, schemas=())
    events = EventService("crane", settings=settings)

    async def move(event: BoxMoved) -> None:
        if event.box == "other":
            other.set()
            return
        begun.set()
        await go.wait()

    events.subscribe(BoxMoved, move, ordered=True, ack_wait=2)

    async with events:
        await events.emit(BoxMoved(box="heavy", step=1))
        await begun.wait()
        nats_server.kill()
        await asyncio.to_thread(nats_server.restart)
        await events.emit(BoxMoved(box="other", step=1))
        async with asyncio.timeout(30):
            await other.wait()
        was_running = not go.is_set()
        go.set()

    assert was_running
