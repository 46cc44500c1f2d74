"""What the tests of the JetStream driver share: drivers, what they told, and a line to cut."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self, TypeVar
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client

from eventbus.delivery import Delivery
from eventbus.drivers.base import Consumer, ConsumerSpec, DriverSignal
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.embedded import NatsServer
from eventbus.envelope import Message
from eventbus.settings import Settings
from tests.faults.harness.pace import patience

SignalT = TypeVar("SignalT", bound=DriverSignal)


def settings_of(url: str, **settings: object) -> Settings:
    """Return settings that give up early, so that a test needn't wait."""
    defaults: dict[str, object] = {"emit_timeout": 3.0, "publish_timeout": 0.5, "nats_url": url}
    return Settings(**(defaults | settings))  # type: ignore[arg-type]


class Told:
    """The signals of a driver, in order."""

    def __init__(self) -> None:
        self.signals: list[DriverSignal] = []
        self._changed = asyncio.Event()

    def __call__(self, signal: DriverSignal) -> None:
        self.signals.append(signal)
        self._changed.set()

    def of(self, kind: type[SignalT]) -> list[SignalT]:
        return [one for one in self.signals if isinstance(one, kind)]

    async def until(self, kind: type[SignalT], count: int = 1, seconds: float = 9) -> SignalT:
        """Return the signal of a kind that is the ``count``-th."""
        async with asyncio.timeout(seconds * patience()):
            while len(self.of(kind)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)[count - 1]


def driver_of(url: str, told: Told | None = None, **settings: object) -> JetStreamDriver:
    driver = JetStreamDriver(settings_of(url, **settings), service="mailer")
    if told is not None:
        driver.watch(told)
    return driver


def event(number: int | str = 1, name: str = "user.created", body: bytes = b"{}") -> Message:
    headers = {"ce-id": f"id-{number}", "ce-type": name}
    return Message(f"events.{name}", headers, body, f"id-{number}")


def listener(**options: object) -> ConsumerSpec:
    defaults: dict[str, object] = {"events": ("user.created",), "slots": 4, "ack_wait": 2.0}
    return ConsumerSpec("mailer__welcome", "mailer", "welcome", **(defaults | options))  # type: ignore[arg-type]


class Taken:
    """A listener's end: takes deliveries, and hands them out one by one."""

    def __init__(self) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.put_nowait(delivery)

    async def next(self, seconds: float = 5) -> Delivery:
        async with asyncio.timeout(seconds * patience()):
            return await self.deliveries.get()

    async def acked(self, count: int, seconds: float = 8) -> list[str]:
        """Acknowledge ``count`` deliveries and return their ids."""
        async with asyncio.timeout(seconds * patience()):
            ids: list[str] = []
            while len(ids) < count:
                delivery = await self.deliveries.get()
                await delivery.ack()
                ids.append(delivery.message.id or "")
        return ids

    def waiting(self) -> int:
        return self.deliveries.qsize()


@asynccontextmanager
async def consuming(
    driver: JetStreamDriver, taken: Taken, spec: ConsumerSpec | None = None
) -> AsyncIterator[Consumer]:
    spec = spec or listener()
    await driver.provision([spec])
    consumer = await driver.consume(spec, taken)
    try:
        yield consumer
    finally:
        await consumer.stop()


async def pending(server: NatsServer, durable: str = "mailer__welcome") -> tuple[int, int]:
    """Return how many events the durable hasn't handed out, and how many are un-acknowledged."""
    async with plain(server.url) as client:
        info = await client.jetstream().consumer_info("EVENTS", durable)
    return info.num_pending or 0, info.num_ack_pending or 0


@asynccontextmanager
async def plain(url: str, **options: object) -> AsyncIterator[Client]:
    """Give a client that knows nothing of the bus."""
    client = await nats.connect(url, allow_reconnect=False, **options)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.close()


async def stored_ids(url: str, stream: str = "EVENTS") -> list[str]:
    """Return the message id of everything in a stream, in order."""
    ids: list[str] = []
    async with plain(url) as client:
        manager = client.jetstream()
        state = (await manager.stream_info(stream)).state
        for sequence in range(max(1, state.first_seq), state.last_seq + 1):
            message = await manager.get_msg(stream, sequence)
            ids.append((message.headers or {}).get("Nats-Msg-Id", ""))
    return ids


def hpub(subject: bytes, head: bytes, body: bytes = b"{}") -> bytes:
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (
        subject,
        len(head),
        len(head) + len(body),
        head,
        body,
    )


async def put_raw(url: str, lines: bytes) -> None:
    """Write protocol bytes that no client library would send, and wait until they are read."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + lines + b"PING\r\n")
    async with asyncio.timeout(5 * patience()):
        await reader.readuntil(b"PONG\r\n")
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


class Line:
    """A TCP proxy before a server: it can be cut, go silent, or say what the server didn't."""

    def __init__(self, server: NatsServer) -> None:
        self._target = urlsplit(server.url)
        self._listening: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.forth: Callable[[bytes], bytes] = lambda data: data
        """What becomes of bytes towards the server."""
        self.back: Callable[[bytes], bytes] = lambda data: data
        """What becomes of bytes towards the client."""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        self.url = f"nats://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._listening is not None
        self._listening.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def silence(self) -> None:
        """Let nothing through any more; connections stay open."""
        self._open.clear()

    def restore(self) -> None:
        """Let through again, also what was held back."""
        self._open.set()

    def cut(self) -> None:
        """Reset all connections."""
        self._open.set()
        for writer in self._writers:
            writer.transport.abort()

    def inject(self, data: bytes) -> None:
        """Say something to the clients that the server didn't."""
        for writer in self._writers:
            if writer.get_extra_info("sockname")[1] == urlsplit(self.url).port:
                writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            back, forth = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(forth)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(reader, forth, "forth"))
            group.create_task(self._copy(back, writer, "back"))

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: str
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._open.wait()
                change = self.forth if way == "forth" else self.back
                target.write(change(data))
        target.transport.abort()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
