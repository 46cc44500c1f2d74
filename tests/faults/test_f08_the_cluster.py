"""F8: nodes of a cluster of three die, hand over, or are restarted one by one."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eventbus import EventService
from tests.faults.harness.cluster import Cluster
from tests.faults.harness.history import What
from tests.faults.harness.stage import Stage
from tests.faults.harness.step import StepTaken

pytestmark = [pytest.mark.faults, pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

ELECTED_WITHIN = 15.0
SOURCED_WITHIN = 50.0
"""A server looks only every ten seconds whether what it sources from has been silent as long."""
PROMPT = 3.0
REPLICATED = {"replicas": 3, "emit_timeout": 25, "publish_timeout": 2}


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Give a cluster of its own."""
    async with Cluster() as cluster:
        yield cluster


@pytest.fixture
async def nodes(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Stage]:
    """Give a stage on that cluster."""
    stage = Stage(cluster.url, tmp_path)
    yield stage
    await stage.close()


def replicated(stage: Stage) -> EventService:
    mailer = stage.service(**REPLICATED)
    stage.listen(mailer, ack_wait=5.0)
    return mailer


async def promptly(stage: Stage, events: EventService, number: int) -> None:
    """Emit an event after a quiet moment, and have it measured how soon it is handled."""
    step = StepTaken(thread="prompt", number=number)
    began = time.monotonic()
    await stage.emit(events, step)
    await stage.handled(step.mark)
    stage.took("until an event is handled", time.monotonic() - began, PROMPT)


async def test_f08_a_leader_that_is_killed_is_replaced_and_nothing_is_lost(
    nodes: Stage, cluster: Cluster
) -> None:
    mailer = replicated(nodes)
    async with mailer:
        async with nodes.load(mailer) as load:
            await load.more(100)
            leader = await cluster.leader()
            cluster.nodes[leader].kill()
            await load.more(100, ELECTED_WITHIN + 5)
            await cluster.restart(leader)
        await nodes.calm(mailer)

    nodes.took("without an emit", nodes.history.longest_gap(), ELECTED_WITHIN)
    await nodes.check()
    assert nodes.history.of(What.REFUSED) == []


async def test_f08_leaders_that_step_down_are_hardly_felt(nodes: Stage, cluster: Cluster) -> None:
    mailer = replicated(nodes)
    async with mailer:
        async with nodes.load(mailer) as load:
            for _ in range(3):
                await load.more(60)
                await cluster.step_down()
                await nodes.ground.call("CONSUMER.LEADER.STEPDOWN.EVENTS.mailer__send")
            await load.more(60)
        await nodes.drained()
        for number in range(3):
            await nodes.ground.call("CONSUMER.LEADER.STEPDOWN.EVENTS.mailer__send")
            await promptly(nodes, mailer, number)
        await nodes.calm(mailer)

    nodes.took("without an emit", nodes.history.longest_gap(), PROMPT)
    await nodes.check()


async def test_f08_with_two_of_three_down_nothing_is_promised_and_all_is_kept(
    nodes: Stage, cluster: Cluster
) -> None:
    mailer = replicated(nodes)
    async with mailer:
        async with nodes.load(mailer) as load:
            await load.more(100)
            for name in ("n1", "n2"):
                cluster.nodes[name].kill()
            killed = len(nodes.history.entries)
            await asyncio.sleep(4)
            # What was stored before they died may be told after it, and nothing else.
            promised = nodes.history.entries[killed:]
            for name in ("n1", "n2"):
                await cluster.restart(name)
            await load.more(100, 2 * ELECTED_WITHIN)
        await nodes.calm(mailer)

    await nodes.check()
    late = [one for one in promised if one.what is What.STORED]
    assert all(one.at < promised[0].at + 3 for one in late)


async def test_f08_a_restart_of_all_nodes_and_then_of_the_service_loses_nothing(
    nodes: Stage, cluster: Cluster
) -> None:
    mailer = replicated(nodes)
    async with mailer:
        async with nodes.load(mailer) as load:
            for name in cluster.nodes:
                await load.more(60, ELECTED_WITHIN + 5)
                await cluster.restart(name)
                await cluster.whole()
            await load.more(60, ELECTED_WITHIN + 5)
        await nodes.drained()
        for number, name in enumerate(cluster.nodes):
            await cluster.restart(name)
            await promptly(nodes, mailer, number)
            await cluster.whole()
        began = time.monotonic()
    nodes.took("to stop", time.monotonic() - began, PROMPT)
    async with mailer:
        await nodes.calm(mailer)

    nodes.took("without an emit", nodes.history.longest_gap(), ELECTED_WITHIN)
    await nodes.check()


async def test_f08_what_is_due_while_the_leader_of_what_waits_is_dead_comes_once(
    nodes: Stage, cluster: Cluster
) -> None:
    mailer = replicated(nodes)
    steps = [StepTaken(thread="due", number=n) for n in range(20)]
    async with mailer:
        leader = await cluster.leader("EVENTS_LATER")
        # A node that leads both takes twice as long: who sources asks before there is a leader
        # to answer, and servers wait 30 s for that answer.
        while await cluster.leader() == leader:
            await cluster.step_down()
        now = datetime.now(UTC)  # noqa: TID251 - the server's clock decides
        due = {step: now + timedelta(seconds=2 + n / 5) for n, step in enumerate(steps)}
        await nodes.schedule(mailer, due)
        await nodes.handled(steps[0].mark)
        cluster.nodes[leader].kill()
        await asyncio.sleep(1)
        await cluster.restart(leader)
        await nodes.handled(*(one.mark for one in steps), seconds=SOURCED_WITHIN)
        await nodes.calm(mailer)

    await nodes.check()
