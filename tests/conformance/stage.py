"""Where a scenario is played: in memory under a clock that it moves, or on a real server."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Self

from typing_extensions import override

from eventbus import Event, EventService, Settings
from eventbus.clock import Clock, SystemClock
from eventbus.delivery import Delivery
from eventbus.drivers.base import ConsumerSpec, Driver, Receipt
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.memory import MemoryDriver
from eventbus.drivers.memory.broker import Sizes
from eventbus.drivers.memory.shared import shared_broker
from eventbus.envelope import Message
from eventbus.testing.clock import VirtualClock

__all__ = ("Made", "MemoryStage", "RealStage", "Stage")

PATIENCE = 40.0


class Made(Event, name="thing.made", key="key"):
    """What most scenarios are about."""

    key: str = "a"
    number: int = 1
    padding: str = ""


class Stage(ABC):
    """Services of one namespace, and what was noted of them, in order."""

    clock: Clock

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.history: list[str] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.driver = await self._stack.enter_async_context(self.make_driver("app"))
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    @abstractmethod
    def make_driver(self, service: str) -> Driver: ...

    @abstractmethod
    async def wait(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    async def pause(self, durable: str, seconds: float) -> None: ...

    def service(
        self, name: str = "app", observer: Callable[[object], None] | None = None
    ) -> EventService:
        observers = () if observer is None else (observer,)
        return EventService(name, settings=self.settings, clock=self.clock, observers=observers)

    def note(self, *words: object) -> None:
        self.history.append(" ".join(map(str, words)))

    async def until(self, count: int) -> None:
        """Wait until so much is noted."""
        async with asyncio.timeout(PATIENCE):
            while len(self.history) < count:
                await self.wait(0.05)

    async def quiet(self) -> None:
        """Wait for what must not come any more."""
        await self.wait(0.5)

    def spec(self, listener: str = "one", **changes: object) -> ConsumerSpec:
        plain = ConsumerSpec(f"app__{listener}", "app", listener, ("thing.made",), ack_wait=1.0)
        return replace(plain, **changes)  # type: ignore[arg-type]

    async def consume(self, spec: ConsumerSpec, deliver: Callable[[Delivery], None]) -> None:
        await self.driver.provision([spec])
        consumer = await self.driver.consume(spec, deliver)
        self._stack.push_async_callback(consumer.stop)

    def message(self, body: bytes = b"{}", id: str = "1") -> Message:
        headers = {"ce-id": id, "ce-type": "thing.made", "ce-specversion": "1.0"}
        return Message(self.settings.subjects.event("thing.made"), headers, body, id)

    def seconds(self, number: float) -> timedelta:
        return timedelta(seconds=number)

    async def letters(self, failed_queue: str = "") -> list[Message]:
        """Return the dead letters, in order."""
        stream = replace(self.settings.subjects, failed_queue=failed_queue).dead_letter_stream
        found: list[Message] = []
        while (one := await self._letter(stream, len(found) + 1)) is not None:
            found.append(one)
        return found

    async def _letter(self, stream: str, sequence: int) -> Message | None:
        return await self.driver.stored(Receipt("", stream, sequence, driver=self.driver.name))

    async def redrive(self, letter: Message, listener: str) -> None:
        """Send the event of a letter to its listener, as an operator does."""
        headers = {name: value for name, value in letter.headers.items() if name.startswith("ce-")}
        headers["eventbus-redrive"] = "1"
        subject = self.settings.subjects.retry("app", listener, "thing.made")
        await self.driver.publish(Message(subject, headers, letter.body, "redrive:1:1"))


class MemoryStage(Stage):
    """In memory; time passes when the stage moves it."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.clock: VirtualClock = VirtualClock()

    @override
    def make_driver(self, service: str) -> Driver:
        sizes = Sizes(
            max_bytes=self.settings.max_bytes,
            later_max_bytes=self.settings.later_max_bytes,
            max_age=self.settings.max_age,
            duplicate_window=self.settings.duplicate_window,
        )
        return MemoryDriver(shared_broker(self.settings.namespace, sizes, self.clock))

    @override
    async def wait(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    @override
    async def pause(self, durable: str, seconds: float) -> None:
        assert isinstance(self.driver, MemoryDriver)
        self.driver.broker.pause(durable, self.clock.now() + self.seconds(seconds))


class RealStage(Stage):
    """On a real server; time passes by itself."""

    clock = SystemClock()

    @override
    def make_driver(self, service: str) -> Driver:
        return JetStreamDriver(self.settings, service=service)

    @override
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @override
    async def pause(self, durable: str, seconds: float) -> None:
        assert isinstance(self.driver, JetStreamDriver)
        until = self.clock.now() + self.seconds(seconds)
        await self.driver.controls.pause(durable, until)
