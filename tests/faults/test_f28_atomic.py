"""F28: who works an atomic listener is killed (kill -9) at any point, and so is the server."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from eventbus import EventService
from eventbus.drivers.atomic import Mark
from eventbus.embedded import NatsServer
from eventbus.errors import SequenceConflictError
from eventbus.settings import Settings
from tests.faults.harness.cluster import Cluster
from tests.faults.harness.ground import Ground
from tests.faults.harness.mill import Mill
from tests.faults.harness.step import StepTaken
from tests.integration.rig import driver_of, event
from tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

IN_A_CLUSTER = {"replicas": 3, "emit_timeout": 30, "publish_timeout": 5}


class Source:
    """Emits the steps that are ground."""

    def __init__(self, events: EventService) -> None:
        self._events = events
        self.marks: list[str] = []

    async def more(self, count: int) -> None:
        steps = [
            StepTaken(thread="w", number=len(self.marks) + number, seconds=0.02)
            for number in range(count)
        ]
        await self._events.emit_many(steps)
        self.marks.extend(one.mark for one in steps)


@asynccontextmanager
async def source(server: NatsServer) -> AsyncIterator[Source]:
    async with EventService("source", settings=Settings(nats_url=server.url)) as events:
        yield Source(events)


def halves(marks: list[str]) -> Counter[tuple[str, int]]:
    """Return what is in the stream where each step became two events, once."""
    return Counter((mark, half) for mark in marks for half in range(2))


async def test_f28_what_atomic_listeners_emit_is_stored_once_whoever_dies(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    chance = random.Random(28)
    async with Mill.open(nats_server.url, tmp_path) as mill, source(nats_server) as steps:
        for _ in range(10):
            await steps.more(12)
            workers = await mill.worker(), await mill.worker()
            await mill.grinds(2)
            for worker in workers:
                await mill.kill_soon(worker, chance)
        await mill.worker()
        await mill.done(2 * len(steps.marks))
        stored = await mill.stored()

    assert stored == halves(steps.marks)
    assert await Ground(nats_server.url).letters() == []


async def test_f28_what_atomic_listeners_emit_is_stored_once_where_the_server_dies(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    chance = random.Random(280)
    async with Mill.open(nats_server.url, tmp_path) as mill, source(nats_server) as steps:
        worker = await mill.worker()
        for _ in range(3):
            await steps.more(25)
            await mill.grinds(chance.randrange(2, 30))
            nats_server.kill()
            nats_server.restart()
        await mill.kill_soon(worker, chance)
        await mill.worker()
        await mill.done(2 * len(steps.marks))
        stored = await mill.stored()

    assert stored == halves(steps.marks)
    assert await Ground(nats_server.url).letters() == []


async def test_f28_in_a_cluster_what_is_known_by_its_id_is_left_out_and_the_stream_goes_on() -> (
    None
):
    first, second, third = (event(number) for number in (1, 2, 3))

    async with Cluster() as cluster, driver_of(cluster.url, **IN_A_CLUSTER) as driver:
        await driver.publish(first)
        for number, messages in enumerate(([first, second], [second, third])):
            await driver.commit(Mark(f"events-inbox.mill.grind.{number}", "run"), messages)
        await cluster.step_down()
        with pytest.raises(SequenceConflictError):
            await driver.commit(Mark("events-inbox.mill.grind.0", "another run"), [event(4)])
        await driver.publish(event(5))

        async def stored() -> list[str | None]:
            return [one.message.id async for one in driver.admin.messages("EVENTS", "events.>")]

        async def all_are_stored() -> bool:
            return await stored() == ["id-1", "id-2", "id-3", "id-5"]

        # A replica that answers may be behind its leader.
        await eventually(all_are_stored, state=stored)
