"""Places that listeners share: who gets the next one, and what is lost by nobody."""

import asyncio
from collections import Counter

import pytest

from eventbus.worker.slots import WEIGHTS, Entrance, Slots


async def served(slots: Slots, order: list[str], who: str, weight: int, count: int) -> None:
    """Take a place ``count`` times at once, and write down who got one."""

    async def one() -> None:
        if await slots.take(who, weight):
            order.append(who)
            await asyncio.sleep(0)
            slots.give_back()

    await asyncio.gather(*(one() for _ in range(count)))


async def test_places_go_to_those_who_wait_by_their_weight_and_none_starves() -> None:
    slots, order = Slots(1), list[str]()
    assert await slots.take("first", 1)
    waiting = [
        asyncio.ensure_future(served(slots, order, name, WEIGHTS[name], 170))  # noqa: TID251 - awaited
        for name in ("low", "normal", "high")
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    slots.give_back()
    await asyncio.gather(*waiting)

    first = Counter(order[:105])
    assert first == {"high": 80, "normal": 20, "low": 5}
    assert Counter(order) == {"high": 170, "normal": 170, "low": 170}


async def test_who_comes_back_after_a_pause_has_saved_nothing() -> None:
    slots, order = Slots(1), list[str]()
    await served(slots, order, "busy", 1, 50)
    order.clear()
    assert await slots.take("busy", 1)
    waiting = [
        asyncio.ensure_future(served(slots, order, name, 1, 10))  # noqa: TID251 - awaited
        for name in ("busy", "idle")
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    slots.give_back()
    await asyncio.gather(*waiting)

    assert Counter(order[:10]) == {"busy": 5, "idle": 5}


async def test_no_more_than_the_limit_are_in_at_once() -> None:
    slots, inside, most = Slots(3), 0, 0

    async def one(number: int) -> None:
        nonlocal inside, most
        async with Entrance(str(number % 4), 1, [slots]).passed() as is_in:
            assert is_in
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(one(number) for number in range(40)))

    assert most == 3


async def test_one_that_is_cancelled_while_it_waits_costs_no_place() -> None:
    slots = Slots(1)
    assert await slots.take("a", 1)
    waiting = asyncio.ensure_future(slots.take("b", 1))  # noqa: TID251 - awaited
    await asyncio.sleep(0)
    slots.give_back()  # it has its place now, and doesn't know

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert await slots.take("c", 1)


async def test_one_that_is_cancelled_early_leaves_the_queue() -> None:
    slots = Slots(1)
    assert await slots.take("a", 1)
    waiting = asyncio.ensure_future(slots.take("b", 1))  # noqa: TID251 - awaited
    await asyncio.sleep(0)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    slots.give_back()

    assert await slots.take("c", 1)


async def test_closed_places_are_for_nobody() -> None:
    group, shared = Slots(2), Slots(1)
    assert await shared.take("a", 1)

    async def enter() -> bool:
        async with Entrance("b", 1, [group, shared]).passed() as is_in:
            return is_in

    waiting = asyncio.ensure_future(enter())  # noqa: TID251 - awaited
    await asyncio.sleep(0)
    shared.close()

    assert await waiting is False
    assert await enter() is False
    assert [await group.take("c", 1), await group.take("c", 1)] == [True, True]
