"""A TCP proxy before a server: latency, resets, black holes, half-open lines, lost answers."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

__all__ = ("Flow", "Proxy", "Way")

CHUNK = 65536


class Flow(Enum):
    """What becomes of bytes that go one way."""

    PASS = "pass"
    HOLD = "hold"
    """They wait, as behind a partition that heals: TCP sends them again."""
    DROP = "drop"
    """They vanish; what follows on that connection makes no sense, so restoring resets it."""


@dataclass(slots=True)
class Way:
    """One direction of all connections."""

    flow: Flow = Flow.PASS
    dropped: int = 0


class Proxy:
    """Stands between clients and one server; use it in ``async with``."""

    def __init__(self, target: str, *, seed: int = 1) -> None:
        self._target = urlsplit(target)
        self._chance = random.Random(seed)
        self._listening: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.forth = Way()
        """Towards the server."""
        self.back = Way()
        """Towards the clients."""
        self.latency = 0.0
        """Seconds that bytes take each way."""
        self.jitter = 0.0
        """By how much that varies, up and down."""
        self.resets = 0.0
        """The chance that a piece of data ends its connection instead."""
        self.counted_resets = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._listening is not None, "entered before it is left"
        self._listening.close()
        self.reset()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    def black_hole(self) -> None:
        """Let nothing through in either direction; connections stay open."""
        self._set(Flow.HOLD, Flow.HOLD)

    def lose_answers(self) -> None:
        """Let clients be heard, and drop what the server says."""
        self._set(Flow.PASS, Flow.DROP)

    def lose_requests(self) -> None:
        """Let the server be heard, and drop what clients say."""
        self._set(Flow.DROP, Flow.PASS)

    def restore(self) -> None:
        """Let through again, also what was held; a connection that lost bytes is reset."""
        if Flow.DROP in (self.forth.flow, self.back.flow):
            self.reset()
        self._set(Flow.PASS, Flow.PASS)

    def reset(self) -> None:
        """Reset all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    def say(self, data: bytes) -> None:
        """Say something to the clients that the server didn't."""
        own = urlsplit(self.url).port
        for writer in self._writers:
            if writer.get_extra_info("sockname")[1] == own:
                writer.write(data)

    def _set(self, forth: Flow, back: Flow) -> None:
        self.forth.flow, self.back.flow = forth, back
        self._changed.set()
        self._changed = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "served outside of a task"
        self._serving.add(task)
        self._writers.add(writer)
        try:
            back, forth = await asyncio.open_connection(self._target.hostname, self._target.port)
            self._writers.add(forth)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, forth, self.forth))
                group.create_task(self._copy(back, writer, self.back))
            self._writers.discard(forth)
        except (OSError, asyncio.CancelledError):
            return  # the server is down, or the test is over: the client sees a reset
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._serving.discard(task)

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: Way
    ) -> None:
        """Copy until either end closes; a line with latency is a queue of what is due when."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            arriving = group.create_task(self._arrive(line, target, way))
            with suppress(OSError):
                while data := await source.read(CHUNK):
                    due = asyncio.get_running_loop().time() + self._delay()
                    line.put_nowait((due, data))
            line.put_nowait((0.0, b""))
            await arriving
        target.transport.abort()

    async def _arrive(
        self, line: "asyncio.Queue[tuple[float, bytes]]", target: asyncio.StreamWriter, way: Way
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await line.get()
            if not data:
                return
            await asyncio.sleep(max(0.0, due - loop.time()))
            while way.flow is Flow.HOLD:
                await self._changed.wait()
            if way.flow is Flow.DROP:
                way.dropped += len(data)
            elif self.resets and self._chance.random() < self.resets:
                self.counted_resets += 1
                target.transport.abort()
                return
            else:
                target.write(data)

    def _delay(self) -> float:
        return self.latency + self._chance.uniform(-self.jitter, self.jitter)
