"""The nodes' configuration: nats-server takes it, and three servers that run it are a cluster."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import nats
import nats.errors
import pytest
from nats.js.api import StreamConfig

from eventbus.embedded import find_server
from eventbus.embedded.process import Process, lock_folder, spawn

pytestmark = [
    pytest.mark.nats,
    pytest.mark.xdist_group("nats-cluster"),
    pytest.mark.usefixtures("_nats_binary"),
]

CONF = Path(__file__).parents[2] / "deploy" / "nats" / "cluster.conf"
PASSWORD = "1e9"  # a number where the configuration's quotes go missing


class Node:
    """One server of the cluster, and the addresses it was given."""

    def __init__(self, name: str, store: Path) -> None:
        self.name = name
        self.store = store
        self.client, self.monitoring, self.route = (f"127.0.0.1:{port}" for port in free_ports(3))

    def environment(self, routes: list[str]) -> dict[str, str]:
        return {
            "NATS_NAME": self.name,
            "NATS_LISTEN": self.client,
            "NATS_HTTP": self.monitoring,
            "NATS_CLUSTER_LISTEN": self.route,
            "NATS_ROUTES": "[" + ", ".join(f'"nats://{route}"' for route in routes) + "]",
            "NATS_ROUTE_USER": "route",
            "NATS_ROUTE_PASSWORD": f'"{PASSWORD}"',
            "NATS_USER": "eventbus",
            "NATS_PASSWORD": f'"{PASSWORD}"',
            "NATS_STORE": f'"{self.store}"',
            "NATS_SYNC_INTERVAL": "always",
        }

    def start(self, routes: list[str]) -> None:
        self.store.mkdir()
        given = [f"{name}={value}" for name, value in self.environment(routes).items()]
        command = [str(shutil.which("env")), "-i", *given, str(find_server()), "-c", str(CONF)]
        lock = lock_folder(self.store)
        try:
            self.process: Process = spawn(command, log=self.store / "log", lock=lock)
        finally:
            os.close(lock)

    def stop(self) -> None:
        self.process.popen.kill()
        self.process.ended.wait()

    def is_healthy(self) -> bool:
        return self.status("/healthz") == http.HTTPStatus.OK

    def status(self, path: str) -> int:
        connection = http.client.HTTPConnection(self.monitoring, timeout=1)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()


def free_ports(count: int) -> list[int]:
    """Return ports that are free together; a node must know those of the others before it runs."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def cluster(_nats_binary: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    folder = tmp_path_factory.mktemp("cluster")
    nodes = [Node(f"nats-{number}", folder / str(number)) for number in (1, 2, 3)]
    try:
        for node in nodes:
            node.start([one.route for one in nodes])
        deadline = time.monotonic() + 15
        while not all(node.is_healthy() for node in nodes):
            assert time.monotonic() < deadline, [(node.store / "log").read_text() for node in nodes]
            threading.Event().wait(0.05)
        yield nodes
    finally:
        for node in nodes:
            node.stop()


def checked(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(find_server()), "-t", "-c", str(CONF)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10)


async def connected(node: Node, password: str = PASSWORD) -> nats.NATS:
    return await nats.connect(
        f"nats://{node.client}", user="eventbus", password=password, allow_reconnect=False
    )


def test_nats_server_takes_the_configuration(tmp_path: Path) -> None:
    environment = Node("nats-1", tmp_path).environment(["127.0.0.1:6222"])

    check = checked(environment)

    assert check.returncode == 0, check.stderr


def test_a_variable_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    environment = Node("nats-1", tmp_path).environment(["127.0.0.1:6222"])

    del environment["NATS_SYNC_INTERVAL"]
    check = checked(environment)

    assert check.returncode == 1
    assert "NATS_SYNC_INTERVAL" in check.stderr


def test_the_nodes_are_given_every_variable_of_the_configuration(tmp_path: Path) -> None:
    asked = set(re.findall(r"\$(\w+)", CONF.read_text()))

    assert set(Node("nats-1", tmp_path).environment([])) == asked


@pytest.mark.slow
async def test_three_nodes_hold_three_copies_and_go_on_with_two(cluster: list[Node]) -> None:
    client = await connected(cluster[0])
    jetstream = client.jetstream()
    stream = await jetstream.add_stream(
        StreamConfig(name="EVENTS", subjects=["events.>"], num_replicas=3)
    )

    assert stream.cluster is not None
    first = await jetstream.publish("events.user.created", b"{}")
    copies = {stream.cluster.leader, *(one.name for one in stream.cluster.replicas or [])}
    await client.close()
    # A follower, so that no election is waited for.
    lost, *left = sorted(cluster, key=lambda node: node.name == stream.cluster.leader)
    lost.stop()
    client = await connected(left[0])
    second = await client.jetstream().publish("events.user.created", b"{}", timeout=5)
    await client.close()

    assert copies == {"nats-1", "nats-2", "nats-3"}
    assert (first.seq, second.seq) == (1, 2)
