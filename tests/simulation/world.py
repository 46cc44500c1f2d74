"""Processes of one service on a broker in memory, with everything that can befall them.

They share a clock that stands still. A process here is a service with a driver that can die, freeze
and lose answers; a listener does what its event's script says, one deed for each run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from typing_extensions import override

from eventbus import Context, Discard, Event, EventService, Reject, Retry, RetryLater, Settings
from eventbus.attempts import AttemptLog, History
from eventbus.delivery import Delivery
from eventbus.drivers.base import HEADROOM, Consumer, ConsumerSpec, Deliver, Receipt
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from eventbus.envelope import Message
from eventbus.errors import EmitUnknown, NotConnectedError, SettleError
from eventbus.testing.clock import VirtualClock

__all__ = ("ATTEMPTS", "DEEDS", "Step", "World")

ATTEMPTS = 3
ACK_WAIT = 12.0
FAR = 40.0
"""A delay for which an event is parked."""
DEEDS = ("ok", "fail", "reject", "discard", "later", "far", "wait", "crash")

RAISED: Mapping[str, Exception] = {
    "fail": ValueError("as its script says"),
    "reject": Reject("as its script says"),
    "discard": Discard("as its script says"),
    "later": RetryLater(after=3),
    "far": RetryLater(after=FAR),
}

T = TypeVar("T")


class Step(Event, name="step.taken"):
    """What its listener does on each of its runs; nothing on later ones."""

    number: int
    deeds: tuple[str, ...] = ()


class Line:
    """What lies between a process and the broker."""

    def __init__(self) -> None:
        self.is_dead = False
        self.loses_acks = 0
        self._open = asyncio.Event()
        self._open.set()

    @property
    def is_frozen(self) -> bool:
        """Whether the process stands still."""
        return not self._open.is_set()

    def freeze(self) -> None:
        """Let nothing through, later or never."""
        self._open.clear()

    def thaw(self) -> None:
        """Let through what has waited."""
        self._open.set()

    def die(self) -> None:
        """Let nothing through any more."""
        self.is_dead = True
        self._open.set()

    async def passes(self) -> None:
        """Wait while the process stands still.

        Raises:
            NotConnectedError: It is dead.
        """
        await self._open.wait()
        if self.is_dead:
            raise NotConnectedError("this process is dead")


class FaultyDelivery:
    """A delivery at the end of such a line."""

    def __init__(self, inner: Delivery, line: Line) -> None:
        self._inner = inner
        self._line = line
        self.message = inner.message
        self.stream = inner.stream
        self.sequence = inner.sequence
        self.stored_at = inner.stored_at
        self.deliveries = inner.deliveries

    @property
    def lost(self) -> bool:
        """Whether it may be somebody else's."""
        return self._inner.lost

    async def ack(self) -> None:
        """Be done with it, unless that gets lost."""
        await self._settle(self._inner.ack)

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back, unless that gets lost."""
        await self._settle(lambda: self._inner.nak(delay))

    async def term(self, reason: str) -> None:
        """Never have it again, unless that gets lost."""
        await self._settle(lambda: self._inner.term(reason))

    async def in_progress(self) -> None:
        """Start its ack wait anew."""
        with suppress(NotConnectedError):
            await self._line.passes()
            await self._inner.in_progress()

    async def _settle(self, how: Callable[[], Awaitable[None]]) -> None:
        await self._line.passes()
        if self._line.loses_acks:
            self._line.loses_acks -= 1
            # Its slot is free, and the broker hears nothing until the lease ends.
            self._inner.supersede()  # type: ignore[attr-defined]
            await self._inner.nak()
            raise SettleError("the answer was lost")
        await how()


class FaultyLog:
    """An attempt log at the end of such a line."""

    def __init__(self, inner: AttemptLog, line: Line) -> None:
        self._inner = inner
        self._line = line

    async def read(self, place: str) -> History:
        """Return what is recorded."""
        await self._line.passes()
        return await self._inner.read(place)

    async def write(self, place: str, history: History) -> None:
        """Record it."""
        await self._line.passes()
        await self._inner.write(place, history)

    async def forget(self, place: str) -> None:
        """Drop the record."""
        if not self._line.is_dead:
            await self._inner.forget(place)


class FaultyDriver(MemoryDriver):
    """The driver of a process that can die, freeze and lose answers."""

    def __init__(self, world: "World", line: Line) -> None:
        super().__init__(world.broker)
        self._world = world
        self._line = line
        self._log = FaultyLog(world.broker.attempts, line)

    @property
    @override
    def attempts(self) -> AttemptLog:
        """Where it keeps the failed attempts."""
        return self._log

    @override
    async def publish(self, message: Message, *, headroom: int = HEADROOM) -> Receipt:
        """Store a message."""
        await self._line.passes()
        if message.subject.startswith("events-dlq.") and self._world.letters_fail:
            raise NotConnectedError("nothing takes dead letters now")
        receipt = await super().publish(message, headroom=headroom)
        if message.subject.startswith("events.") and self._world.emits_lose:
            self._world.emits_lose = False
            raise EmitUnknown(name="step.taken", id=receipt.id, after=1, tries=1)
        return receipt

    @override
    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Store a message for later."""
        await self._line.passes()
        return await super().schedule(message, at=at, holder=holder)

    @override
    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Start a consumer."""
        return await super().consume(
            consumer, lambda one: deliver(FaultyDelivery(one, self._line))
        )


@dataclass
class Told:
    """What is known of one event."""

    script: tuple[str, ...]
    attempts: list[int] = field(default_factory=list)
    """Of all its runs."""
    ended: list[tuple[int, str]] = field(default_factory=list)
    """Attempt and deed of the runs that came to their end."""
    effects: int = 0
    is_disturbed: bool = False
    """Something befell a process, or what it needs, before it was done with."""

    @property
    def next(self) -> str:
        """What its listener does on its next run."""
        run = len(self.attempts)
        return self.script[run] if run < len(self.script) else "ok"

    @property
    def deeds(self) -> list[str]:
        """What its listener has done."""
        return [deed for _, deed in self.ended]

    @property
    def unended(self) -> int:
        """Runs that didn't come to their end."""
        return len(self.attempts) - len(self.ended)


class Process:
    """One process of the service."""

    def __init__(self, world: "World") -> None:
        self.line = Line()
        self._world = world
        self.service = EventService(
            "mailer",
            settings=world.settings,
            driver=FaultyDriver(world, self.line),
            clock=world.clock,
        )
        self.service.subscribe(
            Step,
            self._listen,
            name="send",
            concurrency=3,
            ack_wait=ACK_WAIT,
            retry=Retry(attempts=ATTEMPTS, start=1, jitter="none"),
        )

    async def _listen(self, event: Step, context: Context) -> None:
        told = self._world.told[event.number]
        deed = told.next
        told.attempts.append(context.attempt)
        if deed == "crash":
            self._world.disturb()
            self.line.die()
        if deed == "wait":
            await self._world.go_on.wait()
        if self.line.is_dead:
            await asyncio.Event().wait()  # a dead process does nothing more
        told.ended.append((context.attempt, deed))
        if deed in RAISED:
            raise RAISED[deed]
        told.effects += 1


class World:
    """All that there is; what a test does to it returns once everything has come to rest."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._runner.get_loop()
        self.settings = Settings()
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self.clock)
        self.told: dict[int, Told] = {}
        self.unknown: list[Step] = []
        self._letters_fail = False
        self.emits_lose = False
        self.go_on = asyncio.Event()
        self.processes: list[Process] = []
        self._source = EventService(
            "source", settings=self.settings, driver=FaultyDriver(self, Line()), clock=self.clock
        )
        self.start()
        self._do(self._source.start())

    def disturb(self) -> None:
        """Take note that what isn't done with now may be run more often than its script says."""
        for told in self.told.values():
            told.is_disturbed = told.is_disturbed or not told.effects

    @property
    def letters_fail(self) -> bool:
        """Whether nothing takes dead letters."""
        return self._letters_fail

    @letters_fail.setter
    def letters_fail(self, fail: bool) -> None:
        self._letters_fail = fail
        self.disturb()

    def emit(self, deeds: tuple[str, ...]) -> None:
        """Emit an event with a script."""
        step = Step(number=len(self.told), deeds=deeds)
        self.told[step.number] = Told(deeds, is_disturbed=self._are_disturbed)
        self._emit(step)

    @property
    def _are_disturbed(self) -> bool:
        """Whether something is wrong now."""
        lines = [one.line for one in self.processes]
        bad = any(one.is_frozen or one.is_dead or one.loses_acks for one in lines)
        return bad or self.letters_fail

    def lose_settlements(self, process: Process, count: int) -> None:
        """Have the next settlements of a process get lost."""
        self.disturb()
        process.line.loses_acks = count

    def emit_again(self) -> None:
        """Emit again what isn't known to be stored."""
        self._emit(self.unknown.pop())

    def start(self) -> None:
        """Start a process."""
        process = Process(self)
        self.processes.append(process)
        self._do(process.service.start())

    def stop(self, process: Process) -> None:
        """Stop a process as a deploy does."""
        self.processes.remove(process)
        process.line.thaw()
        self._do(process.service.stop(grace=0))

    def kill(self, process: Process) -> None:
        """End a process in the middle of whatever it does."""
        self.disturb()
        process.line.die()
        self.bury()

    def bury(self) -> None:
        """Clear away the processes that have died."""
        for process in [one for one in self.processes if one.line.is_dead]:
            self.stop(process)

    def let_go(self) -> None:
        """Let the listeners go on that wait."""
        self.go_on.set()
        self._do(self.clock.settle())
        self.go_on.clear()

    def freeze(self, process: Process) -> None:
        """Have a process stand still."""
        self.disturb()
        process.line.freeze()

    def thaw(self, process: Process) -> None:
        """Let a process go on."""
        process.line.thaw()
        self._do(self.clock.settle())

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._do(self.clock.advance(seconds))

    def heal(self) -> None:
        """End all faults, and wait until nothing is left to do."""
        self._letters_fail = self.emits_lose = False
        self.go_on.set()
        while self.unknown:
            self.emit_again()
        for _ in range(60 + 8 * len(self.told)):
            self.bury()
            for process in self.processes:
                process.line.loses_acks = 0
                process.line.thaw()
            if not self.processes:
                self.start()
            self.advance(FAR)
            if self.is_at_rest:
                return
        raise AssertionError(f"it doesn't come to rest: {self.durable}")

    @property
    def durable(self) -> object:
        """How far the listener's durable is."""
        return self.broker.durable("mailer__send").state()

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is on its way to the listener."""
        state = self.broker.durable("mailer__send").state()
        return not (state.pending or state.unsettled or self.broker.later.waiting) and not any(
            one.line.is_dead for one in self.processes
        )

    def close(self) -> None:
        """End all processes."""
        for process in list(self.processes):
            self.stop(process)
        self._do(self._source.stop(grace=0))
        self._runner.close()

    def _emit(self, step: Step) -> None:
        try:
            self._do(self._source.emit(step))
        except EmitUnknown:
            self.unknown.append(step)

    def _do(self, work: Awaitable[T]) -> T:
        async def whole() -> T:
            result = await work
            await self.clock.settle()
            return result

        return self._runner.run(whole())
