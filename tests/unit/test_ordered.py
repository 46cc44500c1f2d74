"""Ordered listeners: what has to be run again stays in hand, under its lease, until it is settled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventbus.attempts import History, Known, Verdict
from eventbus.declaration import subscription
from eventbus.delivery import Outcome
from eventbus.drivers.base import Consumer, ConsumerSpec, Features, InOrder
from eventbus.errors import NotConnectedError, UnsupportedError
from eventbus.event import Event
from eventbus.settlement import STAY_DELAY, Wait
from eventbus.telemetry.signals import Settled
from eventbus.worker.heartbeat import Heartbeat
from eventbus.worker.ordered import OrderedPump
from tests.unit.bench import DLQ, Bench, UserCreated, arriving, raising, welcome
from tests.unit.conftest import FakeDelivery, RecordingDriver, StillClock
from tests.unit.test_parked import DictParked

BROKEN = raising(ValueError("no such customer"))


async def run(
    bench: Bench,
    listener: Callable[..., Awaitable[None]],
    delivery: FakeDelivery | None = None,
    known: Known | None = None,
    **options: Any,
) -> Wait | None:
    dispatcher = bench.dispatcher(listener, ordered=True, **options)
    return await dispatcher(delivery or bench.delivery(), known or Known())


async def test_an_event_that_fails_stays_in_hand_until_its_next_run(bench: Bench) -> None:
    wait = await run(bench, BROKEN)

    assert wait is not None
    assert (wait.delay, wait.verdict and wait.verdict.attempt) == (2, 2)
    assert bench.driver.journal == []
    assert [one.outcome for one in bench.told if isinstance(one, Settled)] == [Outcome.RETRY]


async def test_also_with_a_delay_for_which_others_are_parked(bench: Bench) -> None:
    slow = raising(ValueError("down"))

    wait = await run(bench, slow, known=Known(Verdict(2)))

    assert wait is not None
    assert bench.driver.scheduled == []


async def test_if_the_process_dies_then_the_event_is_a_suspect(bench: Bench) -> None:
    await run(bench, BROKEN, bench.delivery(deliveries=1))

    history = bench.driver.attempts.writes[-1]
    assert (history.failed, history.settled) == (1, 0)


async def test_its_attempts_go_on_from_what_its_lane_knows(bench: Bench) -> None:
    known = Known(Verdict(3, history=History(failed=2)))

    wait = await run(bench, BROKEN, known=known)

    assert wait is None
    assert bench.driver.journal == [DLQ, "term: dead letter: exception"]
    assert bench.letter().attempts == 3


async def test_an_event_that_waited_behind_another_is_no_suspect(bench: Bench) -> None:
    delivery = bench.delivery(deliveries=2)

    await run(bench, welcome, delivery, Known(behind=True))

    assert bench.driver.attempts.writes == []
    assert bench.driver.journal == ["ack"]


async def test_an_event_whose_dead_letter_cant_be_stored_stays_in_hand(bench: Bench) -> None:
    bench.driver.raises = [NotConnectedError("no connection")]

    wait = await run(bench, BROKEN, known=Known(Verdict(3)))

    assert wait == Wait(STAY_DELAY, Verdict(3))
    assert bench.driver.journal == ["publish failed"]


async def test_an_event_that_isnt_declared_yet_holds_up_its_key_alone(bench: Bench) -> None:
    unknown = arriving(subject="events.user.renamed", ce_type="user.renamed")

    wait = await run(bench, welcome, bench.delivery(unknown))

    assert wait is not None
    assert bench.driver.journal == []


async def test_the_events_of_a_parked_key_become_dead_letters_unrun(bench: Bench) -> None:
    log = DictParked()
    bench.driver.parked = log  # type: ignore[attr-defined]
    dispatcher = bench.dispatcher(
        raising(ValueError()), ordered=True, on_failure="park_key", name="send"
    )

    await dispatcher(bench.delivery(sequence=1), Known(Verdict(3)))
    await dispatcher(bench.delivery(sequence=2), Known(behind=True))

    reasons = [one.headers["Eventbus-Dead-Reason"] for one in bench.driver.published]
    assert reasons == ["exception", "key_parked"]
    assert (log.records["u-1"].first, log.records["u-1"].last) == (1, 2)


class Pinned(RecordingDriver):
    """A driver that keeps what takes its deliveries in order."""

    def __init__(self) -> None:
        super().__init__()
        self.features = Features(ordered=True)
        self.taker: InOrder

    async def consume_in_order(self, consumer: ConsumerSpec, taker: InOrder) -> Consumer:
        """Keep who takes."""
        self.taker = taker
        return self

    def limit(self, slots: int) -> None:
        """Take no notice."""

    async def stop(self) -> None:
        """Deliver no more."""
        self.journal.append("stopped")


def pump(
    listener: Callable[..., Awaitable[None]],
    driver: RecordingDriver,
    group: asyncio.TaskGroup,
    clock: StillClock,
    heartbeat: Heartbeat,
) -> OrderedPump:
    one = subscription("mail", UserCreated, listener, {"name": "send", "ordered": True})
    dispatcher = Bench(driver, clock).dispatcher(listener, ordered=True)
    return OrderedPump(one, dispatcher, group, heartbeat, clock)


def held(heartbeat: Heartbeat) -> int:
    """How many deliveries are kept alive."""
    return sum(map(len, heartbeat._held.values()))


async def test_what_waits_in_its_lane_is_kept_alive_and_let_go_once_it_is_settled(
    clock: StillClock,
) -> None:
    driver, beats, go = Pinned(), Heartbeat(clock), asyncio.Event()

    async def listen(event: Event) -> None:
        await go.wait()

    async with asyncio.TaskGroup() as group:
        one = pump(listen, driver, group, clock, beats)
        await one.start(driver)  # type: ignore[arg-type]
        for sequence in (1, 2):
            driver.taker.take(FakeDelivery(arriving(), sequence=sequence, journal=driver.journal))
        driver.taker.resume()
        at_first = (held(beats), one.in_hand)
        go.set()
        await asyncio.gather(*one.running)

    assert at_first == (2, 2)
    assert (held(beats), one.in_hand) == (0, 0)
    assert driver.journal == ["ack", "ack"]


async def test_a_stop_gives_back_what_waits_and_lets_what_runs_end(clock: StillClock) -> None:
    driver, beats, go, begun = Pinned(), Heartbeat(clock), asyncio.Event(), asyncio.Event()

    async def listen(event: Event) -> None:
        begun.set()
        await go.wait()

    async with asyncio.TaskGroup() as group:
        one = pump(listen, driver, group, clock, beats)
        await one.start(driver)  # type: ignore[arg-type]
        for sequence in (1, 2):
            driver.taker.take(FakeDelivery(arriving(), sequence=sequence, journal=driver.journal))
        driver.taker.resume()
        await begun.wait()
        await one.stop()
        at_the_stop = list(driver.journal)
        go.set()

    assert at_the_stop == ["stopped", "nak 0"]
    assert driver.journal == ["stopped", "nak 0", "ack"]
    assert held(beats) == 0


async def test_a_driver_that_keeps_no_order_is_refused_by_name(clock: StillClock) -> None:
    driver = RecordingDriver()
    async with asyncio.TaskGroup() as group:
        one = pump(welcome, driver, group, clock, Heartbeat(clock))

        with pytest.raises(
            UnsupportedError, match=r"order by key, which listener 'send' asks for"
        ):
            await one.start(driver)  # type: ignore[arg-type]
