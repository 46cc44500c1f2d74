"""The bulk lane: many messages in their order over JetStream's fast ingest (ADR-50).

One answer stands for many messages. The server stops at the first one that it refuses, so what
it counts is stored without a gap.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

from eventbus.drivers.jetstream.api import number, table
from eventbus.drivers.jetstream.link import Link
from eventbus.drivers.jetstream.peer import Raw
from eventbus.envelope import Message
from eventbus.errors import EventBusError, NotConnectedError

__all__ = ("LEAST", "ingest")

FLOW = 200
"""Messages for which the server sends one answer."""
AHEAD = 3
"""How many answers may be on their way."""
LEAST = 2
"""Messages of a batch: one to open it, one to end it."""
LOOK = 0.25
"""Seconds after which it is looked whether the line still stands."""
_START, _APPEND, _END = 0, 1, 2


async def ingest(link: Link, messages: Sequence[Message], *, within: float) -> int:
    """Store two messages or more in their order; return how many of the first surely are.

    Never raises what a server or a line does; 0 where nobody knows.
    """
    batch = _Ingest(link, messages)
    try:
        async with asyncio.timeout(within):
            await batch.run()
    except (TimeoutError, EventBusError):
        return 0
    return batch.stored


class _Ingest:
    def __init__(self, link: Link, messages: Sequence[Message]) -> None:
        self._link = link
        self._messages = messages
        self._inbox = link.new_inbox()
        self._every = FLOW
        self._answered = 0
        self._opened = False
        self._ended = False
        self._moved = asyncio.Event()
        self.stored = 0

    async def run(self) -> None:
        """Send all; returns once the server has counted them, or refused one."""
        subscription = await self._link.subscribe(f"{self._inbox}.>", self._take)
        try:
            last = len(self._messages)
            for place, message in enumerate(self._messages, 1):
                while self._must_wait(place):
                    await self._wait()
                if self._ended:
                    break
                self._send(place, message, last)
            while not self._ended:
                await self._wait()
        finally:
            await subscription.drain(0.5)

    def _must_wait(self, place: int) -> bool:
        if self._ended or place == 1:
            return False
        # Without the answer to the first one, the server may not know of the batch.
        return not self._opened or place - self._answered > self._every * AHEAD

    def _send(self, place: int, message: Message, last: int) -> None:
        step = _END if place == last else _START if place == 1 else _APPEND
        reply = f"{self._inbox}.{FLOW}.fail.{place}.{step}.$FI"
        self._link.send(message.subject, message.body, reply, message.headers, message.id)

    async def _wait(self) -> None:
        """Wait for the next answer, or for the end of the line."""
        self._moved.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await self._moved.wait()
        if self._link.problem:
            raise NotConnectedError(self._link.problem)

    def _take(self, raw: Raw) -> None:
        try:
            answer = table(json.loads(raw.data))
        except ValueError:
            answer = {}  # nobody takes that subject: the server won't count what follows
        if "count" in answer:
            self.stored = number(answer["count"])
            self._ended = True
        elif answer.get("type") == "ack":
            self._opened = True
            self._answered = max(self._answered, number(answer.get("seq")))
            self._every = number(answer.get("msgs")) or FLOW
        elif answer.get("type") != "err":  # after that one the count follows
            self._ended = True
        self._moved.set()
