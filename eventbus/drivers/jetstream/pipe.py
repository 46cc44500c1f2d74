"""`PublishPipe`: the pipe of events to the stream."""

import asyncio
from collections.abc import Awaitable
from typing import cast

from typing_extensions import override

from eventbus.drivers.base import HEADROOM
from eventbus.drivers.jetstream import publisher
from eventbus.drivers.pipelined import Answer, Pipe
from eventbus.drivers.receipt import Receipt
from eventbus.envelope import Message

__all__ = ("PublishPipe",)


class PublishPipe(Pipe):
    """What a publisher does, step by step; ``refused`` explains why there is no room."""

    def __init__(self, below: publisher.Publisher, refused: publisher.Refused) -> None:
        self._publisher = below
        self._refused = refused

    @override
    def begin(self, message: Message) -> Answer | None:
        return self._publisher.begin(message, headroom=HEADROOM)

    @override
    def receipt_of(self, message: Message, answer: Answer) -> Receipt | None:
        return self._publisher.receipt_of(message, cast("publisher.Answer", answer))

    @override
    def end(self, message: Message, answer: Answer, *, waited: float) -> Awaitable[Receipt]:
        started = asyncio.get_running_loop().time() - waited
        sent = cast("publisher.Answer", answer)
        return self._publisher.end(message, sent, started, self._refused)
