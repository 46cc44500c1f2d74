"""Lanes: one event of a key at a time, by its sequence, and nothing while they are halted."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from eventbus import headers as h
from eventbus.attempts import Known, Verdict
from eventbus.delivery import Delivery
from eventbus.envelope import Message
from eventbus.settlement import Wait
from eventbus.worker.lanes import Lanes
from tests.unit.conftest import FakeDelivery, StillClock

AGAIN = Wait(delay=3.0, verdict=Verdict(attempt=2))


def delivery(sequence: int, key: str = "a") -> FakeDelivery:
    return FakeDelivery(Message("events.box.moved", {h.KEY: key}, b""), sequence=sequence)


class Bench:
    """Lanes whose runs wait until a test lets them end."""

    def __init__(self, group: asyncio.TaskGroup, clock: StillClock) -> None:
        self.began: list[tuple[int, Known]] = []
        self.returned: list[tuple[int, Known]] = []
        self.ends: dict[int, list[Wait | None]] = defaultdict(list)
        """How the next runs of a sequence end; it waits where nothing is said."""
        self._changed = asyncio.Event()
        self.lanes = Lanes(
            self._run, self._give_back, limit=2, clock=clock, spawn=group.create_task
        )

    @property
    def sequences(self) -> list[int]:
        """What has begun."""
        return [sequence for sequence, _ in self.began]

    def end(self, sequence: int, how: Wait | None = None) -> None:
        """Let a run end, now or when it begins."""
        self.ends[sequence].append(how)
        self._changed.set()

    async def _run(self, one: Delivery, known: Known) -> Wait | None:
        self.began.append((one.sequence, known))
        while not self.ends[one.sequence]:
            self._changed.clear()
            await self._changed.wait()
        return self.ends[one.sequence].pop(0)

    async def _give_back(self, one: Delivery, known: Known) -> None:
        self.returned.append((one.sequence, known))


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def bench(clock: StillClock) -> AsyncIterator[Bench]:
    async with asyncio.TaskGroup() as group:
        bench = Bench(group, clock)
        yield bench
        await bench.lanes.end()
        for sequence in range(10):
            bench.end(sequence)


async def test_nothing_begins_before_they_are_told_to_go_on(bench: Bench) -> None:
    bench.lanes.take(delivery(1))
    await settle()

    assert (bench.sequences, bench.lanes.in_hand) == ([], 1)


async def test_the_events_of_a_key_run_one_by_one_in_the_order_of_their_sequences(
    bench: Bench,
) -> None:
    for sequence in (3, 1, 2):
        bench.lanes.take(delivery(sequence))
    bench.lanes.resume()
    await settle()
    first = list(bench.sequences)

    for sequence in (1, 2, 3):
        bench.end(sequence)
    await settle()

    assert first == [1]
    assert bench.sequences == [1, 2, 3]


async def test_keys_run_side_by_side_up_to_the_limit_the_oldest_events_first(
    bench: Bench,
) -> None:
    for sequence, key in ((3, "c"), (2, "b"), (1, "a")):
        bench.lanes.take(delivery(sequence, key))
    bench.lanes.resume()
    await settle()
    first = list(bench.sequences)
    bench.end(2)
    await settle()

    assert first == [1, 2]
    assert bench.sequences == [1, 2, 3]


async def test_an_event_that_has_to_run_again_runs_before_those_behind_it(
    bench: Bench, clock: StillClock
) -> None:
    bench.lanes.take(delivery(1))
    bench.lanes.take(delivery(2))
    bench.end(1, AGAIN)
    bench.end(1)
    bench.end(2)
    bench.lanes.resume()
    await settle()

    assert bench.sequences == [1, 1, 2]
    assert clock.monotonic() == AGAIN.delay
    assert bench.began[1][1] == Known(AGAIN.verdict, behind=True)


async def test_what_stood_behind_another_one_is_told_that_it_did(bench: Bench) -> None:
    bench.lanes.take(delivery(1))
    bench.lanes.take(delivery(2))
    bench.end(1)
    bench.lanes.resume()
    await settle()

    assert [known.behind for _, known in bench.began] == [False, True]


async def test_a_lane_goes_with_its_last_event(bench: Bench) -> None:
    bench.lanes.take(delivery(1))
    bench.end(1)
    bench.lanes.resume()
    await settle()

    assert (bench.lanes.keys, bench.lanes.in_hand) == (0, 0)


async def test_a_delivery_takes_the_place_of_the_older_one_of_its_event(bench: Bench) -> None:
    older, newer = delivery(1), delivery(1)
    bench.lanes.take(older)

    replaced = bench.lanes.take(newer)

    assert replaced is older
    assert bench.lanes.in_hand == 1


async def test_what_comes_again_while_it_runs_is_run_in_its_place_if_it_fails(
    bench: Bench,
) -> None:
    bench.lanes.take(delivery(1))
    bench.lanes.take(delivery(2))
    bench.lanes.resume()
    await settle()
    bench.lanes.take(delivery(1))

    bench.end(1, AGAIN)
    bench.end(1)
    bench.end(2)
    await settle()

    assert bench.sequences == [1, 1, 2]
    assert bench.began[1][1].verdict == AGAIN.verdict


async def test_nothing_runs_behind_an_event_that_isnt_ours_any_more(bench: Bench) -> None:
    first = delivery(1)
    first.lost = True
    bench.lanes.take(first)
    bench.lanes.take(delivery(2))
    bench.lanes.take(delivery(3, "b"))
    bench.lanes.resume()
    await settle()
    before = list(bench.sequences)
    bench.lanes.take(delivery(1))
    await settle()

    assert before == [3]
    assert bench.sequences == [3, 1]


async def test_halted_what_runs_goes_on_and_nothing_follows(bench: Bench) -> None:
    bench.lanes.take(delivery(1))
    bench.lanes.take(delivery(2))
    bench.lanes.resume()
    await settle()

    bench.lanes.halt()
    bench.end(1)
    await settle()

    assert (bench.sequences, bench.lanes.in_hand) == ([1], 1)


async def test_halted_while_it_waits_for_its_next_run_an_event_isnt_run(
    bench: Bench, clock: StillClock
) -> None:
    bench.lanes.take(delivery(1))
    bench.lanes.resume()
    await settle()
    bench.lanes.halt()
    bench.end(1, AGAIN)
    await settle()
    await bench.lanes.hand_back()

    assert bench.sequences == [1]
    assert bench.returned == [(1, Known(AGAIN.verdict))]


async def test_only_what_came_before_the_halt_and_doesnt_run_is_handed_back(
    bench: Bench,
) -> None:
    for sequence in (1, 2):
        bench.lanes.take(delivery(sequence))
    bench.lanes.resume()
    await settle()
    bench.lanes.halt()
    bench.lanes.take(delivery(3))

    await bench.lanes.hand_back()

    assert [sequence for sequence, _ in bench.returned] == [2]
    assert bench.lanes.in_hand == 2


async def test_what_was_handed_back_while_it_waited_for_room_isnt_run(bench: Bench) -> None:
    for sequence, key in ((1, "a"), (2, "b"), (3, "c")):
        bench.lanes.take(delivery(sequence, key))
    bench.lanes.resume()
    await settle()

    bench.lanes.halt()
    await bench.lanes.hand_back()
    bench.lanes.resume()
    bench.end(1)
    await settle()

    assert bench.sequences == [1, 2]
    assert [sequence for sequence, _ in bench.returned] == [3]


async def test_at_the_end_everything_goes_back_now_or_once_it_has_failed(bench: Bench) -> None:
    for sequence in (1, 2):
        bench.lanes.take(delivery(sequence))
    bench.lanes.resume()
    await settle()

    await bench.lanes.end()
    bench.end(1, AGAIN)
    await settle()

    assert bench.returned == [(2, Known()), (1, Known(AGAIN.verdict))]
    assert bench.lanes.in_hand == 0


async def test_after_the_end_they_never_go_on(bench: Bench) -> None:
    await bench.lanes.end()
    bench.lanes.take(delivery(1))
    bench.lanes.resume()
    await settle()

    assert bench.sequences == []
