"""`eventbus run --workers`: several processes of one service, kept running, stopped together."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.cli.shell import Running, cli, project, started, until

PIDS = """
import os

from eventbus import EventService
from schemas.order import OrderPlaced

events = EventService("shop")


@events.background
async def tell() -> None:
    print("worker", os.getpid(), flush=True)


@events.subscribe(OrderPlaced, concurrency=1)
async def pack(event: OrderPlaced) -> None:
    print("packed", event.order_id, flush=True)
"""


@pytest.fixture
def place(shop: Path) -> Path:
    return project(shop, {"services/workers.py": PIDS})


@pytest.fixture
def running(place: Path, nats_server: NatsServer) -> Iterator[Running]:
    settings = {"EVENTBUS_NATS_URL": nats_server.url, "EVENTBUS_GRACE": "4"}
    arguments = ("run", "services.workers:events", "--workers", "2")
    with started(*arguments, cwd=place, settings=settings) as process:
        yield process


def pids(running: Running) -> list[int]:
    return [int(one[1]) for line in running.lines if (one := re.match(r"worker (\d+)", line))]


def wait_for(running: Running, count: int) -> list[int]:
    until(lambda: len(pids(running)) >= count, f"{count} workers", timeout=60)
    return pids(running)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_workers_of_a_service_share_its_events(
    running: Running, place: Path, nats_server: NatsServer
) -> None:
    wait_for(running, 2)

    for number in range(4):
        payload = json.dumps({"order_id": f"o-{number}"})
        done = cli("emit", "order.placed", payload, cwd=place, EVENTBUS_NATS_URL=nats_server.url)
        assert done.returncode == 0, done.stderr
    for number in range(4):
        running.line(f"packed o-{number}")

    packed = [line for line in running.lines if line.startswith("packed")]
    assert sorted(packed) == [f"packed o-{number}" for number in range(4)]


def test_sigterm_reaches_every_worker_and_the_command_ends_with_0(running: Running) -> None:
    found = wait_for(running, 2)

    running.popen.send_signal(signal.SIGTERM)

    assert running.end(60) == 0
    assert not any(is_alive(pid) for pid in found)


def test_a_worker_that_dies_is_started_again(running: Running) -> None:
    first, second = wait_for(running, 2)

    os.kill(first, signal.SIGKILL)

    again = wait_for(running, 3)[2]
    assert is_alive(second)
    assert is_alive(again)
    running.line("worker.ended")
    running.popen.send_signal(signal.SIGTERM)
    assert running.end(60) == 0


def test_workers_stop_when_the_command_is_killed(running: Running) -> None:
    found = wait_for(running, 2)

    running.popen.kill()

    until(lambda: not any(is_alive(pid) for pid in found), "workers outlive it", timeout=60)


def test_what_is_mistyped_ends_the_command_once(place: Path) -> None:
    done = cli("run", "services.workers:evnts", "--workers", "2", cwd=place)

    assert done.returncode == 2
    assert done.stderr.count("error:") == 1


FANOUT = """
import os

from eventbus import EventService
from schemas.order import OrderPlaced

events = EventService("shop")


@events.subscribe(OrderPlaced, mode="fanout")
async def hear(event: OrderPlaced) -> None:
    print(os.environ["EVENTBUS_INSTANCE"], "heard", event.order_id, flush=True)
"""


def test_each_worker_of_an_instance_hears_what_every_process_is_to_hear(
    shop: Path, nats_server: NatsServer
) -> None:
    project(shop, {"services/workers.py": FANOUT})
    server = {"EVENTBUS_NATS_URL": nats_server.url}
    settings = {**server, "EVENTBUS_GRACE": "4", "EVENTBUS_INSTANCE": "pod"}
    arguments = ("run", "services.workers:events", "--workers", "2")
    with started(*arguments, cwd=shop, settings=settings) as running:
        until(
            lambda: sum("service.started" in line for line in running.lines) == 2,
            "two",
            timeout=60,
        )

        done = cli("emit", "order.placed", '{"order_id": "o-1"}', cwd=shop, **server)

        assert done.returncode == 0, done.stderr
        running.line("pod-0 heard o-1")
        running.line("pod-1 heard o-1")
