"""What the server really holds, asked with a plain client that knows nothing of the bus."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from eventbus import headers as h
from tests.faults.harness.checker import Letter, Stored
from tests.faults.harness.step import mark_of
from tests.waiting import eventually

__all__ = ("ApiRefusedError", "Ground")

STEPS = "events.step.>"
LETTERS = "events-dlq.>"
BATCH = 500
PATIENCE = 5.0

Table = dict[str, object]


class ApiRefusedError(Exception):
    """JetStream's API answered with an error."""


class Ground:
    """A server's own view, over a fresh connection for each question."""

    def __init__(self, url: str, **login: object) -> None:
        self._url = url
        self._login = login

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Give a plain client."""
        servers = self._url.split(",")
        options = {"max_reconnect_attempts": 1, "connect_timeout": 2, **self._login}
        client = await nats.connect(servers, allow_reconnect=False, **options)  # type: ignore[arg-type]
        try:
            yield client
        finally:
            await client.close()

    async def call(self, verb: str, body: Table | None = None) -> Table:
        """Ask the JetStream API.

        Raises:
            ApiRefusedError: It says no.
        """
        async with self.client() as client:
            return await _call(client, verb, body)

    async def info(self, stream: str = "EVENTS") -> Table:
        """Return what a stream is."""
        return await self.call(f"STREAM.INFO.{stream}")

    async def last_sequence(self, stream: str = "EVENTS") -> int:
        """Return the sequence of the newest message of a stream."""
        state = cast("dict[str, int]", (await self.info(stream))["state"])
        return state["last_seq"]

    async def config(self, stream: str = "EVENTS") -> Table:
        """Return how a stream is configured."""
        return cast("Table", (await self.info(stream))["config"])

    async def edit(self, stream: str, **fields: object) -> None:
        """Change the configuration of a stream."""
        await self.call(f"STREAM.UPDATE.{stream}", {**await self.config(stream), **fields})

    async def delete(self, stream: str) -> Table:
        """Delete a stream, and return the configuration that it had."""
        config = await self.config(stream)
        await self.call(f"STREAM.DELETE.{stream}")
        return config

    async def create(self, config: Table) -> None:
        """Create a stream."""
        await self.call(f"STREAM.CREATE.{config['name']}", config)

    async def durable(self, durable: str, stream: str = "EVENTS") -> Table:
        """Return what a durable is."""
        return await self.call(f"CONSUMER.INFO.{stream}.{durable}")

    async def backlog(self, durable: str, stream: str = "EVENTS") -> int:
        """Return how many events a durable still has to hand out, or to see settled."""
        info = cast("dict[str, int]", await self.durable(durable, stream))
        return info["num_pending"] + info["num_ack_pending"]

    async def publish(self, subject: str, body: bytes, **headers: str) -> None:
        """Store a message under a subject."""
        async with self.client() as client:
            await client.jetstream().publish(subject, body, headers=headers or None)

    async def stored(self, subject: str = STEPS, stream: str = "EVENTS") -> list[Stored]:
        """Return what a stream holds on a subject, in order."""
        return [_stored(one) for one in await self.messages(subject, stream)]

    async def letters(self) -> list[Letter]:
        """Return all dead letters, in order; none where there is no stream for them."""
        try:
            return [_letter(one) for one in await self.messages(LETTERS, "EVENTS_DLQ")]
        except ApiRefusedError:
            return []

    async def messages(self, subject: str, stream: str) -> list[Msg]:
        """Return a stream's messages on a subject, in order, as direct gets tell them."""
        async with self.client() as client:
            await _healed(client, stream)
            return [one async for one in _messages(client, subject, stream)]


async def _call(client: Client, verb: str, body: Table | None = None) -> Table:
    payload = b"" if body is None else json.dumps(body).encode()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                reply = await client.request(f"$JS.API.{verb}", payload, timeout=2)
                break
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
                await asyncio.sleep(0.1)  # a cluster that elects its leader
    answer = cast("Table", json.loads(reply.data))
    if "error" in answer:
        raise ApiRefusedError(f"{verb}: {answer['error']}")
    return answer


async def _healed(client: Client, stream: str) -> None:
    """Wait until all replicas of a stream hold the same: a direct get may ask any of them."""

    async def is_healed() -> bool:
        cluster = cast("Table", (await _call(client, f"STREAM.INFO.{stream}")).get("cluster", {}))
        replicas = cast("list[Table]", cluster.get("replicas", []))
        return all(one.get("current") and not one.get("lag") for one in replicas)

    await eventually(is_healed)


async def _messages(client: Client, subject: str, stream: str) -> AsyncIterator[Msg]:
    sequence = 1
    while sequence:
        ask = {"batch": BATCH, "next_by_subj": subject, "seq": sequence}
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(ask).encode(), inbox)
        sequence = 0
        while True:
            one = await answers.next_msg(timeout=PATIENCE)
            headers = one.headers or {}
            if "Status" in headers:
                break
            yield one
            sequence = int(headers["Nats-Sequence"]) + 1
        await answers.unsubscribe()
        if headers.get("Nats-Num-Pending", "0") == "0":
            return


def _stored(message: Msg) -> Stored:
    headers = message.headers or {}
    thread, mark = _thread_and_mark(message.data)
    return Stored(
        sequence=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        id=headers.get("Nats-Msg-Id", ""),
        mark=mark,
        thread=thread,
    )


def _letter(message: Msg) -> Letter:
    headers = h.lowered(message.headers or {})

    def told(name: str) -> str:
        return h.unquoted(headers.get(f"eventbus-dead-{name}", ""))

    return Letter(
        listener=told("listener"),
        mark=_thread_and_mark(message.data)[1],
        reason=told("reason"),
        error=f"{told('error-type')}: {told('error-message')}",
        attempts=int(told("attempts") or -1),
        sequence=int(told("original-seq") or 0),
        body=message.data,
    )


def _thread_and_mark(body: bytes) -> tuple[str, str]:
    try:
        record = json.loads(body)
        return str(record["thread"]), mark_of(record["thread"], record["number"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""
