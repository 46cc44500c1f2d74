"""The nodes' configuration: nats-server takes it, and three servers that run it are a cluster."""

import asyncio
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nats
import pytest

from eventbus import Event, EventService
from eventbus.embedded import find_server
from eventbus.embedded.process import Process, lock_folder, spawn
from eventbus.settings import Settings

pytestmark = [
    pytest.mark.nats,
    pytest.mark.xdist_group("nats-cluster"),
    pytest.mark.usefixtures("_nats_binary"),
]

CONF = Path(__file__).parents[2] / "deploy" / "nats" / "cluster.conf"
PASSWORD = "1e9"  # a number where the configuration's quotes go missing


class CrateMoved(Event, name="crate.moved", version=1, key="crate"):
    crate: int


class Node:
    """One server of the cluster, and the addresses it was given."""

    def __init__(self, name: str, store: Path) -> None:
        self.name = name
        self.store = store
        self.client, self.monitoring, self.route = (f"127.0.0.1:{port}" for port in free_ports(3))

    def environment(self, nodes: Iterable["Node"]) -> dict[str, str]:
        routes = ", ".join(f'"nats://route:{PASSWORD}@{node.route}"' for node in nodes)
        return {
            "NATS_NAME": self.name,
            "NATS_LISTEN": self.client,
            "NATS_HTTP": self.monitoring,
            "NATS_CLUSTER_LISTEN": self.route,
            "NATS_ROUTES": f"[{routes}]",
            "NATS_ROUTE_USER": "route",
            "NATS_ROUTE_PASSWORD": f'"{PASSWORD}"',
            "NATS_USER": "eventbus",
            "NATS_PASSWORD": f'"{PASSWORD}"',
            "NATS_STORE": f'"{self.store}"',
            "NATS_SYNC_INTERVAL": "always",
        }

    def start(self, nodes: Iterable["Node"]) -> None:
        self.store.mkdir(exist_ok=True)
        given = [f"{name}={value}" for name, value in self.environment(nodes).items()]
        command = [str(shutil.which("env")), "-i", *given, str(find_server()), "-c", str(CONF)]
        lock = lock_folder(self.store)
        try:
            self.process: Process = spawn(command, log=self.store / "log", lock=lock)
        finally:
            os.close(lock)

    def kill(self) -> None:
        self.process.popen.kill()
        self.process.ended.wait()

    def is_healthy(self) -> bool:
        try:
            return self.monitored("/healthz") == {"status": "ok"}
        except OSError:
            return False

    def monitored(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.monitoring, timeout=1)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.load(connection.getresponse())
            return answer
        finally:
            connection.close()


def free_ports(count: int) -> list[int]:
    """Return free ports; a node must know those of the others before it runs."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def await_health(nodes: list[Node]) -> None:
    """Wait until every node sees the leader and has caught up; nothing announces it."""
    deadline = time.monotonic() + 90
    while not all(node.is_healthy() for node in nodes):
        assert time.monotonic() < deadline, [(node.store / "log").read_text() for node in nodes]
        threading.Event().wait(0.05)


@pytest.fixture(scope="module")
def cluster(_nats_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    folder = tmp_path_factory.mktemp("cluster")
    nodes = [Node(f"nats-{number}", folder / str(number)) for number in (1, 2, 3)]
    started: list[Node] = []
    try:
        for node in nodes:
            node.start(nodes)
            started.append(node)
        await_health(nodes)
        yield nodes
    finally:
        for node in started:
            node.kill()


def settings(nodes: list[Node]) -> Settings:
    return Settings.load(
        nats_url=",".join(f"nats://{node.client}" for node in nodes),
        nats_user="eventbus",
        nats_password=PASSWORD,
        cluster_name="eventbus",
        replicas=3,
    )


def checked(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(find_server()), "-t", "-c", str(CONF)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=10, check=False
    )


async def connected(node: Node) -> nats.NATS:
    return await nats.connect(
        f"nats://{node.client}", user="eventbus", password=PASSWORD, allow_reconnect=False
    )


def test_nats_server_takes_the_configuration(tmp_path: Path) -> None:
    environment = Node("nats-1", tmp_path).environment([])

    check = checked(environment)

    assert check.returncode == 0, check.stderr


def test_a_variable_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    environment = Node("nats-1", tmp_path).environment([])

    del environment["NATS_SYNC_INTERVAL"]
    check = checked(environment)

    assert check.returncode == 1
    assert "NATS_SYNC_INTERVAL" in check.stderr


def test_the_nodes_are_given_every_variable_of_the_configuration(tmp_path: Path) -> None:
    asked = set(re.findall(r"\$(\w+)", CONF.read_text()))

    assert set(Node("nats-1", tmp_path).environment([])) == asked


def test_a_node_has_written_to_disk_what_it_acknowledges(cluster: list[Node]) -> None:
    stores = [node.monitored("/jsz")["config"] for node in cluster]

    assert [store["sync_always"] for store in stores] == [True, True, True]


def test_a_node_asks_for_a_password(cluster: list[Node]) -> None:
    nodes = [node.monitored("/varz") for node in cluster]

    assert [node.get("auth_required") for node in nodes] == [True, True, True]


@pytest.mark.slow
async def test_the_bus_keeps_three_copies_goes_on_with_two_nodes_and_the_third_catches_up(
    cluster: list[Node],
) -> None:
    handled: asyncio.Queue[int] = asyncio.Queue()
    events = EventService("deploy", settings=settings(cluster))

    @events.subscribe(CrateMoved)
    async def record(event: CrateMoved) -> None:
        await handled.put(event.crate)

    async with asyncio.timeout(40), events:
        await events.emit(CrateMoved(crate=1))
        first = await handled.get()
        copies, busy = await copies_and_leaders(cluster[0])

        # Not a leader: an election would take seconds and prove nothing about the file.
        lost = next(node for node in cluster if node.name not in busy)
        lost.kill()
        await events.emit(CrateMoved(crate=2))
        second = await handled.get()
        lost.start(cluster)
        await asyncio.to_thread(await_health, cluster)

    assert copies == {"nats-1", "nats-2", "nats-3"}
    assert (first, second) == (1, 2)


async def copies_and_leaders(node: Node) -> tuple[set[str | None], set[str | None]]:
    """Return who has a copy of the stream, and who leads it and the listener's durable."""
    client = await connected(node)
    stream = await client.jetstream().stream_info("EVENTS")
    durable = await client.jetstream().consumer_info("EVENTS", "deploy__record")
    await client.close()
    assert stream.cluster is not None
    assert durable.cluster is not None
    followers = {one.name for one in stream.cluster.replicas or ()}
    return followers | {stream.cluster.leader}, {stream.cluster.leader, durable.cluster.leader}
