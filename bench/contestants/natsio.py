"""natsio, whose release for Python 3.11 knows no JetStream: published with an inbox for the PubAck.

Its ``request`` doesn't find the caller of an answer in this release, so one subscription takes all
answers, as the faster clients do it themselves.
"""

import asyncio
from itertools import count
from uuid import uuid4

from natsio.client.config import ClientConfig
from natsio.client.core import NATSCore
from natsio.messages.core import CoreMsg

from bench.load import SUBJECT, Case, Result
from bench.peer import OrderPlaced, add_stream, emitted

__all__ = ("CASES",)


class Answers:
    """Hands each PubAck to who waits for it."""

    def __init__(self) -> None:
        self.prefix = f"answers.{uuid4().hex}."
        self._numbers = count()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    def expect(self) -> tuple[str, asyncio.Future[bytes]]:
        """Return where to answer to, and what becomes the answer."""
        subject = f"{self.prefix}{next(self._numbers)}"
        self._waiting[subject] = asyncio.get_running_loop().create_future()
        return subject, self._waiting[subject]

    async def take(self, message: CoreMsg) -> None:
        """Take an answer."""
        self._waiting.pop(message.subject).set_result(message.payload)


async def emit(url: str, events: int, width: int) -> Result:
    """Publish to the stream's subject with ``width`` in flight."""
    await add_stream(url)
    answers = Answers()
    async with NATSCore(ClientConfig(servers=[url], pedantic=False)) as client:
        await client.subscribe(f"{answers.prefix}*", callback=answers.take)

        async def one(event: OrderPlaced) -> None:
            subject, answer = answers.expect()
            await client.publish(SUBJECT, event.model_dump_json().encode(), reply_to=subject)
            async with asyncio.timeout(30):
                assert b'"stream"' in await answer, answer.result()

        return await emitted(one, events, width)


CASES: dict[str, Case] = {
    "emit_256": lambda url, events: emit(url, events, 256),
    "emit_1": lambda url, events: emit(url, events, 1),
}
