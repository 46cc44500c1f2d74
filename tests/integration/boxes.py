"""What the tests of emits send, through what, and what observers heard of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TypeAlias
from uuid import UUID

import pytest

from eventbus import Event, EventService, Receipt, Settings
from eventbus.envelope import Envelope
from eventbus.errors import DriverError
from eventbus.middleware.base import CallEmit, EmitMiddleware
from eventbus.telemetry.signals import EmitFailed, Emitted, Happened
from tests.integration.rig import Line

LONG = 60.0
"""Seconds for what takes one, on a machine that is busy."""


class BoxSent(Event, name="box.sent", key="number"):
    number: str
    content: str = ""


def boxes(many: int, content: str = "") -> list[BoxSent]:
    return [BoxSent(number=str(one), content=content) for one in range(many)]


def ids_after(receipt: Receipt, many: int) -> list[str]:
    """Return the fresh ids that come next in this process, while its clock stands still."""
    last = UUID(receipt.id).int
    return [str(UUID(int=last + number)) for number in range(1, many + 1)]


async def passed_on(envelope: Envelope, call_next: CallEmit) -> Receipt:
    return await call_next(envelope)


Emits: TypeAlias = tuple[EmitMiddleware, ...]
WAYS = pytest.mark.parametrize("middleware", [(), (passed_on,)], ids=["pipeline", "one by one"])
"""Emit middleware has each event go by itself."""


class Heard:
    """What observers are told of emits; a test may act at one of them."""

    def __init__(self) -> None:
        self.stored: list[Emitted] = []
        self.failed: list[EmitFailed] = []
        self.act: tuple[int, Callable[[], None]] = -1, lambda: None

    def __call__(self, happened: Happened) -> None:
        if isinstance(happened, Emitted):
            self.stored.append(happened)
            if len(self.stored) == self.act[0]:
                self.act[1]()
        elif isinstance(happened, EmitFailed):
            self.failed.append(happened)


@asynccontextmanager
async def serving(
    url: str, heard: Heard | None = None, middleware: Emits = (), **more: object
) -> AsyncIterator[EventService]:
    given: dict[str, object] = {"nats_url": url, "emit_timeout": LONG, **more}
    events = EventService("shop", settings=Settings(**given))  # type: ignore[arg-type]
    events.registry.register(BoxSent)
    events.use(emit=middleware)
    if heard is not None:
        events.observe(heard)
    async with events:
        yield events


async def until_stored(events: EventService, event: Event) -> Receipt:
    """Emit an event as long as the connection hasn't recovered."""
    async with asyncio.timeout(LONG):
        while True:
            try:
                return await events.emit(event)
            except DriverError:
                await asyncio.sleep(0.05)


async def cancel_unanswered(emit: Coroutine[object, object, object], line: Line) -> None:
    """Cancel an emit while the server's answer is held back, and cut the line."""
    answered = asyncio.Event()

    def held(data: bytes) -> bytes:
        answered.set()
        return b""

    line.back = held
    async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
        task = group.create_task(emit)
        await answered.wait()
        task.cancel()
    line.back = lambda data: data
    line.cut()
