"""A topology over a plain nats-py client, and what the tests of it need to look at the server."""

import json
from collections.abc import Awaitable, Callable, Sequence

import nats.errors
from nats.aio.client import Client

from eventbus.drivers.base import ConsumerSpec, DriverSignal, TopologyChanged
from eventbus.drivers.jetstream.api import Api, Table, table
from eventbus.drivers.jetstream.topology import Topology
from eventbus.settings import Settings

SECOND = 1_000_000_000


class Desk:
    """A topology over a plain client, what it asked the server, and what it told."""

    def __init__(self, client: Client, **settings: object) -> None:
        self.client = client
        self.verbs: list[str] = []
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        """What to do once, right before a verb is sent."""
        self.told: list[tuple[str, str]] = []
        self.api = Api(self._request)
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        self.topology = Topology(self.api, self.settings, self._take)

    async def _request(self, subject: str, payload: bytes, within: float) -> bytes:
        verb = subject.removeprefix("$JS.API.")
        self.verbs.append(verb)
        if verb in self.before:
            await self.before.pop(verb)()
        try:
            return bytes((await self.client.request(subject, payload, timeout=within)).data)
        except nats.errors.NoRespondersError:
            return b""

    def _take(self, signal: DriverSignal) -> None:
        assert isinstance(signal, TopologyChanged)
        self.told.append((signal.thing, signal.change))

    async def start(self, *specs: ConsumerSpec) -> None:
        """Do what a service does when it starts."""
        await self.topology.ensure_server()
        await self.topology.ensure_streams()
        await self.topology.ensure_consumers(specs)

    async def stream(self, name: str = "EVENTS") -> Table:
        """Return a stream's configuration as the server tells it."""
        return table((await self.api.call(f"STREAM.INFO.{name}")).get("config"))

    async def durable(self, name: str) -> Table:
        """Return a durable's info as the server tells it."""
        return await self.api.call(f"CONSUMER.INFO.EVENTS.{name}")

    async def edit(self, name: str, **fields: object) -> None:
        """Change a stream by hand."""
        await self.api.call(f"STREAM.UPDATE.{name}", {**await self.stream(name), **fields})

    async def publish(self, *names: str) -> None:
        for name in names:
            await self.client.jetstream().publish(f"events.{name}", name.encode())

    async def take(self, durable: str, count: int, *, ack: bool = True) -> list[str]:
        """Pull and return the bodies of up to ``count`` events, fewer where there are no more."""
        # Not no_wait: what was stored a moment ago isn't pending for such a pull yet.
        body = {"batch": count, "expires": SECOND // 5}
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(inbox)
        verb = f"$JS.API.CONSUMER.MSG.NEXT.EVENTS.{durable}"
        await self.client.publish(verb, json.dumps(body).encode(), reply=inbox)
        bodies: list[str] = []
        while len(bodies) < count:
            message = await subscription.next_msg(timeout=5)
            if not message.reply:
                break
            bodies.append(message.data.decode())
            if ack:
                await self.client.request(message.reply, b"+ACK", timeout=5)
        await subscription.unsubscribe()
        return bodies


def listener(name: str = "welcome", *events: str, **options: object) -> ConsumerSpec:
    return ConsumerSpec(
        durable=f"mailer__{name}",
        service="mailer",
        listener=name,
        events=events or ("user.created",),
        **options,  # type: ignore[arg-type]
    )


def excerpt(config: Table, fields: Sequence[str]) -> Table:
    return {field: config.get(field) for field in fields}
