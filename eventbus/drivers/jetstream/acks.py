"""`Acks`: acknowledges what one turn of the event loop has handled with one confirmation.

The server takes the acknowledgements of a durable from one connection in their order, so that its
answer to the last one confirms those before it.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from eventbus.drivers.jetstream.connection import Connection
from eventbus.drivers.jetstream.link import is_no_responders
from eventbus.errors import NotConnectedError

if TYPE_CHECKING:
    from eventbus.drivers.jetstream.peer import Raw

__all__ = ("ACK", "Acknowledged", "Acks")

ACK = b"+ACK"


class Acknowledged(Protocol):
    """A delivery that is to be acknowledged."""

    reply: str
    """Where to."""

    def confirmed(self, known: bool) -> None:
        """Take note whether the server has it."""
        ...


class Acks:
    """The acknowledgements of one durable's deliveries; it has no task of its own."""

    def __init__(self, connection: Connection, per_try: float) -> None:
        self._connection = connection
        self._per_try = per_try
        self._loop = asyncio.get_running_loop()
        self._batch: list[Acknowledged] = []

    def add(self, one: Acknowledged) -> None:
        """Acknowledge it at the end of this turn; it is told whether the server has it."""
        if not self._batch:
            self._loop.call_soon(self._send)
        self._batch.append(one)

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        link = self._connection.link
        if link is None:
            _tell(batch, known=False)
            return
        try:
            link.post([one.reply for one in batch[:-1]], ACK)
            link.tell(batch[-1].reply, ACK, partial(_answered, batch), within=self._per_try)
        except NotConnectedError:
            _tell(batch, known=False)


def _answered(batch: Sequence[Acknowledged], answer: "Raw | None") -> None:
    _tell(batch, known=answer is not None and not is_no_responders(answer))


def _tell(batch: Sequence[Acknowledged], *, known: bool) -> None:
    for one in batch:
        one.confirmed(known)
