"""`CoreAsking`: questions over plain NATS requests; whoever isn't there is noticed at once."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress

from eventbus import headers as h
from eventbus.drivers.asking import Answer, Stop
from eventbus.drivers.jetstream.checks import check_headers, check_subject
from eventbus.drivers.jetstream.connection import Connection
from eventbus.drivers.jetstream.link import Link, is_no_responders
from eventbus.drivers.jetstream.peer import Raw, Subscription
from eventbus.envelope import Message
from eventbus.errors import (
    NobodyAnswersError,
    NotConnectedError,
    PayloadTooLargeError,
    RequestTimeoutError,
)

__all__ = ("CoreAsking",)

LOOK_EVERY = 1.0
DRAIN_PATIENCE = 0.5


class CoreAsking:
    """An `Asking` on one connection; what it answers is heard again after each reconnect."""

    def __init__(
        self,
        connection: Connection,
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
    ) -> None:
        self._connection = connection
        self._spawn = spawn

    async def ask(self, message: Message, *, within: float) -> Message:
        """Return the reply to a question."""
        check_subject(message.subject)
        _check_size(message, self._connection.server.max_payload)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        link = await self._connection.link_by(deadline)
        if link is None:
            raise NotConnectedError(self._connection.problem or "not connected to NATS")
        try:
            raw = await link.ask(
                message.subject, message.body, message.headers, within=deadline - loop.time()
            )
        except TimeoutError as exc:
            raise RequestTimeoutError(subject=message.subject, after=within) from exc
        if is_no_responders(raw):
            raise NobodyAnswersError(subject=message.subject)
        return _message(raw)

    async def answer(self, subject: str, group: str, answer: Answer) -> Stop:
        """Answer what is asked on a subject from now on."""
        responder = _Responder(self._connection, self._spawn, subject, group, answer)
        await responder.start()
        return responder.stop


class _Responder:
    def __init__(
        self,
        connection: Connection,
        spawn: Callable[[Coroutine[object, object, None]], asyncio.Task[None]],
        subject: str,
        group: str,
        answer: Answer,
    ) -> None:
        self._connection = connection
        self._spawn = spawn
        self._subject = subject
        self._group = group
        self._answer = answer
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._link: Link | None = None
        self._subscription: Subscription | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; the server knows of it when this returns, where there is a connection."""
        with suppress(NotConnectedError):
            await self._listen()
        self._keeper = self._spawn(self._keep())

    async def stop(self) -> None:
        """Listen no more, and let what runs finish."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait((self._keeper,))
        if self._subscription is not None:
            await self._subscription.drain(DRAIN_PATIENCE)
        if self._running:
            await asyncio.wait(self._running)

    async def _keep(self) -> None:
        """Listen again on each new link."""
        self._connection.watch(self._wake.set)
        try:
            while True:
                if self._connection.link is not self._link:
                    with suppress(NotConnectedError):
                        await self._listen()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            self._connection.unwatch(self._wake.set)

    async def _listen(self) -> None:
        link = self._connection.link
        if link is None:
            return
        self._subscription = await link.subscribe(self._subject, self._take, self._group)
        await link.wire.flush()
        self._link = link

    def _take(self, raw: Raw) -> None:
        if raw.reply:
            task = self._spawn(self._handle(raw))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _handle(self, raw: Raw) -> None:
        reply = await self._answer(_message(raw))
        link = self._connection.link
        if link is None:
            return  # whoever asked is told that the connection broke, or waits in vain
        with suppress(NotConnectedError):
            link.send(raw.reply, reply.body, headers=reply.headers)


def _message(raw: Raw) -> Message:
    return Message(raw.subject, h.lowered(raw.headers) if raw.headers else {}, raw.data)


def _check_size(message: Message, limit: int) -> None:
    size = len(message.body) + check_headers(message.headers)
    if size > limit:
        raise PayloadTooLargeError(name=message.subject, size=size, limit=limit)
