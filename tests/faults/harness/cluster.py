"""Three nats-servers on loopback that are one cluster."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

from eventbus.embedded import NatsServer
from tests.faults.harness.ground import ApiRefusedError, Ground
from tests.waiting import eventually

__all__ = ("Cluster",)

NAMES = ("n1", "n2", "n3")
STREAMS = ("EVENTS", "EVENTS_LATER")

Table = dict[str, list[dict[str, object]]]


class Cluster:
    """Three nodes, by name; use it in ``async with``."""

    def __init__(self) -> None:
        with _free_ports(len(NAMES)) as ports:
            self._routes = dict(zip(NAMES, ports, strict=True))
        self.nodes = {name: NatsServer(config=self._config(name)) for name in NAMES}
        self._undo = ExitStack()

    @property
    def url(self) -> str:
        """All nodes, as a client is told of them."""
        return ",".join(node.url for node in self.nodes.values())

    @property
    def ground(self) -> Ground:
        """What the nodes that live say."""
        return Ground(",".join(node.url for node in self.nodes.values() if node.running))

    async def __aenter__(self) -> "Cluster":
        async with asyncio.TaskGroup() as group:
            for node in self.nodes.values():
                self._undo.callback(node.stop)
                group.create_task(asyncio.to_thread(node.start, 20))
        await eventually(self._works, 20)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self._undo.close)

    async def leader(self, stream: str = "EVENTS") -> str:
        """Return the name of the node that leads a stream."""
        found = ""

        async def is_led() -> bool:
            nonlocal found
            cluster = (await self.ground.info(stream)).get("cluster", {})
            found = str(cast("dict[str, object]", cluster).get("leader", ""))
            return found in NAMES

        await eventually(is_led)
        return found

    async def step_down(self, stream: str = "EVENTS") -> None:
        """Make the leader of a stream hand over to another node."""
        await self.ground.call(f"STREAM.LEADER.STEPDOWN.{stream}")

    async def restart(self, name: str) -> None:
        """Start a node again, after stopping it if it runs."""
        await asyncio.to_thread(self.nodes[name].restart, 20)

    async def whole(self) -> None:
        """Wait until every node is up to date with every other one."""

        async def is_whole() -> bool:
            try:
                clusters = [(await self.ground.info(one))["cluster"] for one in STREAMS]
            except (ApiRefusedError, TimeoutError, OSError):
                return False
            replicas = [one for cluster in clusters for one in cast("Table", cluster)["replicas"]]
            return all(one.get("current") and not one.get("offline") for one in replicas)

        await eventually(is_whole, 20)

    async def _works(self) -> bool:
        """Tell whether JetStream answers with all nodes there."""
        try:
            for node in self.nodes.values():
                await Ground(node.url).call("INFO")
            config: dict[str, object] = {"name": "PROBE", "subjects": ["probe"], "num_replicas": 3}
            await self.ground.create(config)
            await self.ground.delete("PROBE")
        except (ApiRefusedError, TimeoutError, OSError):
            return False
        return True

    def _config(self, name: str) -> str:
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in self._routes.values())
        return (
            f"server_name: {name}\n"
            f'cluster {{ name: "faults", listen: "127.0.0.1:{self._routes[name]}", '
            f"routes: [{routes}] }}"
        )


@contextlib.contextmanager
def _free_ports(count: int) -> Iterator[list[int]]:
    """Give ports that nobody else gets while the block lasts."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        yield [int(one.getsockname()[1]) for one in sockets]
