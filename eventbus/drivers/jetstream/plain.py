"""nats-py as it is used: its client with what would end its read loop mended, and a subscription."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, cast

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

__all__ = ("FLUSH_PATIENCE", "PlainClient", "PlainSubscription", "heeding")

FLUSH_PATIENCE = 5
T = TypeVar("T")


async def heeding(work: Awaitable[T]) -> T:
    """Await nats-py, and heed a cancellation that it swallows while it flushes.

    Otherwise a stop that comes while a connection is made would wait for it for ever.
    """
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    before = task.cancelling()
    try:
        return await work
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


class PlainClient(Client):
    """nats-py's client, with three ways closed for what comes in to end its read loop."""

    async def flush(self, timeout: int = FLUSH_PATIENCE) -> None:  # noqa: ASYNC109 - nats-py's
        """Wait until the server has seen what was written."""
        # Twice: the ping of the first overtakes what was written in the same turn of the loop.
        await super().flush(timeout)
        await super().flush(timeout)

    async def _process_pong(self) -> None:
        # Nobody waits any more for the answer to a ping that was given up; it still comes.
        waiting = cast("list[asyncio.Future[bool]]", self._pongs)  # pyright: ignore[reportUnknownMemberType]
        if waiting and waiting[0].done():
            del waiting[0]
        else:
            await super()._process_pong()

    def _build_message(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: dict[str, str] | None,
    ) -> Msg:
        if not subject.isascii():
            subject = subject.decode(errors="replace").encode()
        message: Msg = super()._build_message(sid, subject, reply, data, headers)
        return message

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        if not headers:
            return None
        try:
            return await super()._process_headers(headers)  # pyright: ignore[reportUnknownMemberType]
        except (UnicodeDecodeError, IndexError):
            return None  # no headers: it isn't an event, and becomes a dead letter


class PlainSubscription:
    """A subscription through nats-py."""

    def __init__(self, subscription: NatsSubscription, end: Callable[[object], None]) -> None:
        self._subscription = subscription
        self._end = end

    async def drain(self, patience: float) -> None:
        """End it; returns once what the server had sent before was handed over."""
        with suppress(TimeoutError, nats.errors.Error):
            async with asyncio.timeout(patience):
                await heeding(self._subscription.drain())  # type: ignore[no-untyped-call]
                self._end(self)

    def abandon(self) -> None:
        """End the task behind it; nats-py leaves it where its own close fails half-way."""
        task = getattr(self._subscription, "_wait_for_msgs_task", None)
        if task is not None:
            task.cancel()
