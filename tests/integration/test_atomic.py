"""Atomic listeners: their emits and the mark of the event are stored together, or not at all."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

from eventbus import Context, Event, EventService, Receipt, Retry
from eventbus.clock import SystemClock
from eventbus.delivery import Outcome
from eventbus.drivers.base import Driver
from eventbus.drivers.jetstream import turn
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.memory import MemoryBroker, MemoryDriver, Sizes
from eventbus.drivers.wrappers import Fallback
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    DeclarationError,
    IdConflictError,
    PayloadTooLargeError,
    UnsupportedError,
)
from eventbus.kinds import StateEvent
from eventbus.telemetry.signals import Emitted, Happened, Settled
from eventbus.thread import in_loop, in_thread
from eventbus.worker.janitor import Janitor
from tests.faults.harness.pace import patience
from tests.integration.rig import settings_of
from tests.waiting import eventually

if TYPE_CHECKING:
    from eventbus.embedded import NatsServer

ROOM = 4 * 1024 * 1024
LARGE = "x" * 100_000


class Asked(Event, name="parts.asked"):
    count: int = 2
    filler: str = ""


class Other(Event, name="other.happened"):
    filler: str = ""


class Shipped(Event, name="part.shipped"):
    number: int
    filler: str = ""


class Stock(StateEvent, name="stock.counted", key="part"):
    part: str


Listener = Callable[[Asked, Context], Awaitable[object]]


@dataclass
class Seen:
    """What observers were told of the listener, and of what it emits."""

    settled: list[Settled] = field(default_factory=list)
    emitted: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, happened: Happened) -> None:
        if isinstance(happened, Settled) and happened.listener == "ship":
            self.settled.append(happened)
        elif isinstance(happened, Emitted) and happened.name == Shipped.event_spec.name:
            self.emitted.append(happened.id)
        self.changed.set()

    @property
    def outcomes(self) -> list[Outcome]:
        return [one.outcome for one in self.settled]

    async def until(self, *outcomes: Outcome) -> None:
        async with asyncio.timeout(30 * patience()):
            while self.outcomes != list(outcomes):
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Yard:
    """Services on one stream, and what is in it."""

    make: Callable[[str], Driver]
    stack: AsyncExitStack
    seen: Seen = field(default_factory=Seen)

    async def works(self, listener: Listener, **options: object) -> EventService:
        """Start a service with an atomic listener."""
        events = self.service()
        self.listen(events, listener, **options)
        return await self.stack.enter_async_context(events)

    def service(self) -> EventService:
        settings = settings_of("nats://nowhere", namespace="yard")
        return EventService(
            "yard", driver=self.make("yard"), settings=settings, observers=[self.seen]
        )

    def listen(self, events: EventService, listener: Listener, **options: object) -> None:
        given = {"name": "ship", "atomic": True, "retry": Retry(attempts=3, start=0.01)}
        events.subscribe(Asked, listener, **{**given, **options})  # type: ignore[call-overload]

    async def driver(self) -> Driver:
        return await self.stack.enter_async_context(self.make("other"))

    async def shipped(self) -> list[int]:
        return [Shipped.model_validate_json(one.body).number for one in await self.stored()]

    async def stored(self, name: str = "part.shipped") -> list[Message]:
        """Return the events of a name that the stream holds."""
        driver = await self.driver()
        found: list[Message] = []
        for sequence in range(1, 3000):
            one = await driver.stored(Receipt("", "YARD", sequence))
            if one is None and sequence > 1:
                gone = [
                    await driver.stored(Receipt("", "YARD", sequence + n)) for n in range(1, 5)
                ]
                if not any(gone):
                    break
            elif one is not None and one.subject == f"yard.{name}":
                found.append(one)
        return found

    async def again(self) -> None:
        """Store the event once more, as where its acknowledgement and its id were forgotten."""
        (first, *_) = await self.stored("parts.asked")
        kept = {k: v for k, v in first.headers.items() if not k.startswith("nats-")}
        await (await self.driver()).publish(replace(first, headers=kept, id=None))


@pytest.fixture(params=["memory", pytest.param("jetstream", marks=pytest.mark.nats)])
async def yard(request: pytest.FixtureRequest) -> AsyncIterator[Yard]:
    async with AsyncExitStack() as stack:
        yield Yard(_maker(request), stack)


def _maker(request: pytest.FixtureRequest) -> Callable[[str], Driver]:
    if request.param == "memory":
        broker = MemoryBroker(namespace="yard", sizes=Sizes(max_bytes=ROOM))
        return lambda _: MemoryDriver(broker)
    server: NatsServer = request.getfixturevalue("nats_server")
    settings = settings_of(server.url, namespace="yard", max_bytes=ROOM)
    return lambda service: JetStreamDriver(settings, service=service)


async def ship(event: Asked, context: Context) -> None:
    for number in range(event.count):
        await context.emit(Shipped(number=number))


async def test_what_it_emits_is_stored_once_it_has_returned(yard: Yard) -> None:
    receipts: list[Receipt] = []

    async def look(event: Asked, context: Context) -> None:
        receipts.append(await context.emit(Shipped(number=1)))
        receipts.append(await context.emit(Shipped(number=2)))
        assert await yard.shipped() == []
        assert yard.seen.emitted == []

    events = await yard.works(look)
    await events.emit(Asked())
    await yard.seen.until(Outcome.OK)

    assert await yard.shipped() == [1, 2]
    assert [one.pending for one in receipts] == [True, True]
    assert yard.seen.emitted == [one.id for one in receipts]


async def test_a_listener_that_emits_nothing_is_marked_all_the_same(yard: Yard) -> None:
    runs: list[int] = []

    async def look(event: Asked) -> None:
        runs.append(1)

    events = await yard.works(look)  # type: ignore[arg-type]
    await events.emit(Asked())
    await yard.seen.until(Outcome.OK)
    await yard.again()
    await yard.seen.until(Outcome.OK, Outcome.DUPLICATE)

    assert runs == [1]


async def test_a_redelivery_that_meets_the_mark_is_only_acknowledged(yard: Yard) -> None:
    events = await yard.works(ship)
    await events.emit(Asked())
    await yard.seen.until(Outcome.OK)

    await yard.again()
    await yard.seen.until(Outcome.OK, Outcome.DUPLICATE)

    assert await yard.shipped() == [0, 1]


async def test_a_run_that_raises_stores_nothing_and_the_next_one_all(yard: Yard) -> None:
    async def fail_first(event: Asked, context: Context) -> None:
        await context.emit(Shipped(number=context.attempt))
        if context.attempt == 1:
            raise RuntimeError("after the emit")

    events = await yard.works(fail_first)
    await events.emit(Asked())
    await yard.seen.until(Outcome.RETRY, Outcome.OK)

    assert await yard.shipped() == [2]
    assert len(yard.seen.emitted) == 1


async def test_a_dead_letter_has_stored_nothing_and_left_no_mark(yard: Yard) -> None:
    async def fail(event: Asked, context: Context) -> None:
        await ship(event, context)
        raise RuntimeError("never")

    events = await yard.works(fail, retry=Retry(attempts=1))
    receipt = await events.emit(Asked())
    await yard.seen.until(Outcome.DEAD)

    driver = await yard.driver()
    assert await yard.shipped() == []
    assert await driver.marked(f"yard-inbox.yard.ship.{receipt.id}") is None  # type: ignore[attr-defined]


async def test_a_run_that_is_cancelled_at_its_time_limit_stores_nothing(yard: Yard) -> None:
    async def hang(event: Asked, context: Context) -> None:
        await ship(event, context)
        await asyncio.Event().wait()

    events = await yard.works(hang, retry=Retry(attempts=1), timeout=0.2)
    await events.emit(Asked())
    await yard.seen.until(Outcome.DEAD)

    assert await yard.shipped() == []


async def test_of_two_runs_at_the_same_time_one_stores_what_it_emits(yard: Yard) -> None:
    both = asyncio.Barrier(2)

    async def meet(event: Asked, context: Context) -> None:
        async with asyncio.timeout(30 * patience()):
            await both.wait()
        await context.emit(Shipped(number=context.sequence))

    events = await yard.works(meet)
    await events.emit(Asked())
    await yard.again()
    async with asyncio.timeout(30 * patience()):
        while len(yard.seen.settled) < 2:
            yard.seen.changed.clear()
            await yard.seen.changed.wait()

    assert sorted(yard.seen.outcomes) == sorted([Outcome.OK, Outcome.DUPLICATE])
    assert len(await yard.shipped()) == 1


async def test_emits_of_tasks_that_it_awaits_and_of_threads_are_in_the_batch(yard: Yard) -> None:
    async def gather(event: Asked, context: Context) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(context.emit(Shipped(number=number)))

    @in_thread
    def block(event: Asked, context: Context) -> None:
        in_loop(context.emit(Shipped(number=3)))
        in_loop(gather(event, context))
        if context.attempt == 1:
            raise RuntimeError("after all of them")

    events = await yard.works(block)
    await events.emit(Asked())
    await yard.seen.until(Outcome.RETRY, Outcome.OK)

    assert await yard.shipped() == [3, 0, 1, 2]


async def test_an_emit_after_it_has_returned_is_an_error(yard: Yard) -> None:
    late: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    returned = asyncio.Event()

    async with asyncio.TaskGroup() as group:

        async def linger(context: Context) -> None:
            await returned.wait()
            try:
                late.set_result(await context.emit(Shipped(number=1)))
            except DeclarationError as exc:
                late.set_result(exc)

        async def leave(event: Asked, context: Context) -> None:
            group.create_task(linger(context))

        events = await yard.works(leave)
        await events.emit(Asked())
        await yard.seen.until(Outcome.OK)
        returned.set()
        problem = await late

    assert isinstance(problem, DeclarationError)
    assert "had returned" in str(problem)
    assert await yard.shipped() == []


@pytest.mark.parametrize("delayed", [True, False], ids=["delayed", "state"])
async def test_what_another_stream_has_to_keep_is_refused(yard: Yard, delayed: bool) -> None:
    async def refuse(event: Asked, context: Context) -> None:
        await ship(event, context)
        if delayed:
            await context.emit(Shipped(number=9), delay=60)
        else:
            await context.emit(Stock(part="p"))

    events = await yard.works(refuse)
    await events.emit(Asked())
    await yard.seen.until(Outcome.DEAD)

    assert isinstance(yard.seen.settled[0].error, UnsupportedError)
    assert await yard.shipped() == []


async def test_what_is_emitted_with_immediate_goes_past_the_batch(yard: Yard) -> None:
    async def past(event: Asked, context: Context) -> None:
        await context.emit(Shipped(number=1))
        receipt = await context.emit(Shipped(number=2), immediate=True)
        assert not receipt.pending
        raise RuntimeError("what is in the batch goes nowhere")

    events = await yard.works(past, retry=Retry(attempts=1))
    await events.emit(Asked())
    await yard.seen.until(Outcome.DEAD)

    assert await yard.shipped() == [2]


@pytest.mark.parametrize(("count", "stored"), [(999, 999), (1000, 0)])
async def test_a_run_emits_as_much_as_one_batch_holds_or_nothing(
    yard: Yard, count: int, stored: int
) -> None:
    async def many(event: Asked, context: Context) -> None:
        await yard_service.emit_many(Shipped(number=one) for one in range(event.count))

    yard_service = await yard.works(many, retry=Retry(attempts=1))
    await yard_service.emit(Asked(count=count))
    await yard.seen.until(Outcome.OK if stored else Outcome.DEAD)

    assert await yard.shipped() == [*range(stored)]


async def test_one_that_is_too_large_keeps_the_others_out(yard: Yard) -> None:
    async def large(event: Asked, context: Context) -> None:
        await ship(event, context)
        await context.emit(Shipped(number=9, filler="x" * 2_000_000))

    events = await yard.works(large)
    await events.emit(Asked())
    await yard.seen.until(Outcome.DEAD)

    assert isinstance(yard.seen.settled[0].error, PayloadTooLargeError)
    assert await yard.shipped() == []


async def test_what_is_stored_already_under_its_id_is_not_stored_again(yard: Yard) -> None:
    async def twice(event: Asked, context: Context) -> None:
        await context.emit(Shipped(number=1), id="p-1")
        await context.emit(Shipped(number=2), id="p-2")
        await context.emit(Shipped(number=2), id="p-2")
        await context.emit(Shipped(number=3))

    events = await yard.works(twice)
    await events.emit(Shipped(number=1), id="p-1")
    await events.emit(Asked())
    await yard.seen.until(Outcome.OK)
    await yard.again()
    await yard.seen.until(Outcome.OK, Outcome.DUPLICATE)

    assert await yard.shipped() == [1, 2, 3]


@pytest.mark.parametrize("inside", [True, False], ids=["in the batch", "in the stream"])
async def test_another_event_under_an_id_of_its_keeps_all_out(yard: Yard, inside: bool) -> None:
    async def conflict(event: Asked, context: Context) -> None:
        if inside:
            await context.emit(Shipped(number=1), id="p-1")
        await context.emit(Shipped(number=2), id="p-1")
        await context.emit(Shipped(number=3))

    events = await yard.works(conflict)
    if not inside:
        await events.emit(Shipped(number=1), id="p-1")
    await events.emit(Asked())
    await yard.seen.until(Outcome.DEAD)

    assert isinstance(yard.seen.settled[0].error, IdConflictError)
    assert await yard.shipped() == ([] if inside else [1])


async def test_marks_are_no_events_for_those_that_listen_to_all(yard: Yard) -> None:
    names: list[str] = []

    async def note(event: Event, context: Context) -> None:
        names.append(context.name)

    events = yard.service()
    yard.listen(events, ship)
    events.subscribe(">", note)
    await yard.stack.enter_async_context(events)
    await events.emit(Asked())
    await yard.seen.until(Outcome.OK)
    last = await events.emit(Asked(count=0), id="last")
    async with asyncio.timeout(30 * patience()):
        while len(names) < 4:
            yard.seen.changed.clear()
            await yard.seen.changed.wait()

    assert last.sequence == 5  # the mark has a place in the stream
    assert sorted(names) == ["part.shipped", "part.shipped", "parts.asked", "parts.asked"]


async def test_a_replay_passes_marks_only_when_it_is_asked_to(yard: Yard) -> None:
    runs: list[bool] = []

    async def replayed(event: Asked, context: Context) -> None:
        runs.append(context.is_replay)
        await context.emit(Shipped(number=len(runs)))
        if len(runs) == 2:
            raise RuntimeError("once, in the replay")

    events = await yard.works(replayed)
    await events.emit(Asked())
    await yard.seen.until(Outcome.OK)

    await events.replay("ship", "all")
    assert yard.seen.outcomes == [Outcome.OK, Outcome.DUPLICATE]
    await events.replay("ship", "all", again=True)
    await yard.again()
    await yard.seen.until(
        Outcome.OK, Outcome.DUPLICATE, Outcome.RETRY, Outcome.OK, Outcome.DUPLICATE
    )

    assert runs == [False, True, True]
    assert await yard.shipped() == [1, 3]


async def fill(events: EventService, make: Callable[[int], Event]) -> int:
    """Emit until there is no room; return how many it were."""
    for number in count():
        try:
            await events.emit(make(number))
        except BackpressureError:
            return number
    raise AssertionError("no room is too much")


async def test_a_stream_that_is_full_of_its_own_events_is_worked_off(yard: Yard) -> None:
    taken: list[int] = []

    async def pass_on(event: Asked, context: Context) -> None:
        await context.emit(Shipped(number=event.count, filler=event.filler))

    async def take(event: Shipped) -> None:
        taken.append(event.number)

    def service() -> EventService:
        events = yard.service()
        yard.listen(events, pass_on)
        events.subscribe(Shipped, take)
        return events

    async with service():
        pass  # now its durables keep what is emitted
    async with yard.service() as source:
        emitted = await fill(source, lambda number: Asked(count=number, filler=LARGE))
    await yard.stack.enter_async_context(service())
    await yard.seen.until(*[Outcome.OK] * emitted)

    async def all_are_taken() -> bool:
        return len(taken) >= emitted

    await eventually(all_are_taken, 60)
    assert sorted(taken) == [*range(emitted)]
    assert emitted > 10


async def test_a_mark_that_waits_for_room_is_known(yard: Yard) -> None:
    runs: list[int] = []
    filled, may = asyncio.Event(), asyncio.Event()

    async def note(event: Asked, context: Context) -> None:
        runs.append(1)
        await filled.wait()
        await context.emit(Shipped(number=event.count))

    async def slow(event: Asked) -> None:
        await may.wait()

    events = yard.service()
    yard.listen(events, note)
    events.subscribe(Asked, slow)
    await yard.stack.enter_async_context(events)
    await events.emit(Asked(count=1))
    async with yard.service() as source:
        await fill(source, lambda _: Other(filler=LARGE))
        await fill(source, lambda _: Other())
    filled.set()
    await yard.seen.until(Outcome.OK)
    await events.replay("ship", "all")
    may.set()

    assert yard.seen.outcomes == [Outcome.OK, Outcome.DUPLICATE]
    assert runs == [1]


async def test_marks_make_room_with_their_events_and_not_before(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LASTS", 1)
    may = asyncio.Event()

    async def slow(event: Asked) -> None:
        await may.wait()

    def service() -> EventService:
        events = yard.service()
        yard.listen(events, ship)
        events.subscribe(Asked, slow, concurrency=100)
        return events

    async with service() as events:
        receipts: list[Receipt] = []
        for _ in range(20):
            receipts.append(await events.emit(Asked(count=0)))
            await yard.seen.until(*[Outcome.OK] * len(receipts))
        await events.stop(grace=0)  # and its janitor
    driver = await yard.driver()

    async def marked() -> int:
        places = [f"yard-inbox.yard.ship.{one.id}" for one in receipts]
        return len([one for one in places if await driver.marked(one) is not None])  # type: ignore[attr-defined]

    async def looked() -> bool:
        assert driver.room is not None
        if not await driver.room.take_turn():
            return False
        await Janitor(driver.room, yard.seen, SystemClock()).look(pressed=True)
        return True

    await eventually(looked, 60)
    held = await marked()
    may.set()
    async with service():
        await eventually(lambda: _is_idle(driver, "yard__slow"))
    await eventually(looked, 60)

    assert held == 20
    assert await marked() <= 1  # that of the newest event lies behind it


async def _is_idle(driver: Driver, durable: str) -> bool:
    state = await driver.measure(durable)
    return state is not None and not state.unread


def test_a_listener_has_one_kind_of_mark() -> None:
    events = EventService("yard")

    for options in ({"inbox": True}, {"inbox": "kv"}, {"mode": "fanout"}, {"atomic": 1}):
        with pytest.raises(DeclarationError, match="atomic"):
            events.subscribe(Asked, ship, **{"atomic": True, **options})  # type: ignore[call-overload]


@pytest.mark.parametrize("driver", ["sync", "fallback"])
async def test_a_driver_that_has_no_batches_is_refused_at_the_start(driver: str) -> None:
    both = Fallback(MemoryDriver(), MemoryDriver())
    events = EventService("yard", driver="sync" if driver == "sync" else both)
    events.subscribe(Asked, ship, atomic=True)

    with pytest.raises(UnsupportedError, match="atomic batch, which listener 'ship' asks for"):
        await events.start()
