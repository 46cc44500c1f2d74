"""`Acks`: acknowledges what one turn of the event loop has handled with few confirmations.

The server takes the acknowledgements of a durable from one connection in their order, so that its
answer to the last one confirms those before it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from eventbus.drivers.jetstream.connection import Connection
from eventbus.drivers.jetstream.link import is_no_responders
from eventbus.errors import NotConnectedError

if TYPE_CHECKING:
    from eventbus.drivers.jetstream.peer import Raw

__all__ = ("ACK", "MANY", "Acknowledged", "Acks")

_log: Final = logging.getLogger(__name__)

ACK: Final = b"+ACK"
MOST: Final = 128
"""Sent together at most: the server takes them while the rest of the turn is handled."""
MANY: Final = 32
"""So many are worth a write of their own, and don't wait for what others write in this turn."""


class Acknowledged:
    """A delivery that is to be acknowledged."""

    __slots__ = ("reply",)

    reply: str
    """Where to."""

    def freed(self) -> None:
        """Give its slot back: the server has the acknowledgement."""
        raise NotImplementedError

    def confirmed(self, known: bool) -> None:
        """Take note whether the server has it; its slot is free then."""
        raise NotImplementedError


class Acks:
    """The acknowledgements of one durable's deliveries; it has no task of its own.

    ``refill`` is called once slots are free, before anybody is told: what the server sends for
    them is under way meanwhile.
    """

    def __init__(self, connection: Connection, per_try: float, refill: Callable[[], None]) -> None:
        self._connection = connection
        self._per_try = per_try
        self._refill = refill
        self._loop = asyncio.get_running_loop()
        self._batch: list[Acknowledged] = []

    def add(self, one: Acknowledged) -> None:
        """Acknowledge it by the end of this turn; it is told whether the server has it."""
        if not self._batch:
            self._loop.call_soon(self._send)
        self._batch.append(one)
        if len(self._batch) == MOST:
            self._send()

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        link = self._connection.link
        if link is None:
            _tell(batch, known=False)
            return
        try:
            link.post([one.reply for one in batch[:-1]], ACK)
            link.tell(batch[-1].reply, ACK, partial(self._answered, batch), within=self._per_try)
        except NotConnectedError:
            _tell(batch, known=False)
            return
        if len(batch) >= MANY:
            link.flush()

    def _answered(self, batch: Sequence[Acknowledged], answer: "Raw | None") -> None:
        known = answer is not None and not is_no_responders(answer)
        if known:
            for one in batch:
                one.freed()
            self._refill()
        _tell(batch, known=known)


def _tell(batch: Sequence[Acknowledged], *, known: bool) -> None:
    for one in batch:
        try:
            one.confirmed(known)
        except Exception:  # noqa: BLE001 - the others have to be told all the same
            _log.exception("what follows an acknowledgement failed")
