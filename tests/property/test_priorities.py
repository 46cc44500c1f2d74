"""Places are given by weight, whoever waits: none starves, and each is given once."""

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from eventbus.worker.slots import WEIGHTS, Slots

PRIORITIES = sorted(WEIGHTS)
LISTENERS = st.lists(st.sampled_from(PRIORITIES), min_size=2, max_size=6)


async def turns(listeners: list[str], count: int) -> list[int]:
    """Return who got each of the first places, while all always wait for the next one."""
    slots, got = Slots(1), []
    finished = asyncio.Event()

    async def work(number: int) -> None:
        while await slots.take(str(number), WEIGHTS[listeners[number]]):
            got.append(number)
            if len(got) >= count:
                finished.set()
            await asyncio.sleep(0)
            slots.give_back()

    async with asyncio.TaskGroup() as group:
        for number in range(len(listeners)):
            # Two of each, so that one waits while the other has a place.
            group.create_task(work(number))
            group.create_task(work(number))
        await finished.wait()
        slots.close()
    return got[:count]


@given(LISTENERS)
def test_while_all_wait_each_gets_its_share_and_none_starves(listeners: list[str]) -> None:
    total = sum(WEIGHTS[one] for one in listeners)
    rounds = 5

    counted = Counter(asyncio.run(turns(listeners, total * rounds)))

    for number, priority in enumerate(listeners):
        fair = WEIGHTS[priority] * rounds
        assert abs(counted[number] - fair) <= len(listeners) + WEIGHTS[priority]


@given(st.lists(st.sampled_from(["take", "give", "cancel"]), max_size=40), st.integers(1, 3))
def test_whatever_is_cancelled_no_place_is_lost_or_given_twice(
    deeds: list[str], limit: int
) -> None:
    async def play() -> None:
        slots, tasks, held = Slots(limit), [], 0
        for deed in deeds:
            if deed == "take":
                tasks.append(asyncio.get_running_loop().create_task(slots.take("a", 1)))
            elif deed == "cancel" and tasks:
                tasks.pop(0).cancel()  # and at once, without a turn for it, the next deed
            elif deed == "give" and held:
                held -= 1
                slots.give_back()
            if deed == "take":
                await asyncio.sleep(0)
            done = [one for one in tasks if one.done()]
            tasks = [one for one in tasks if not one.done()]
            held += sum(not one.cancelled() and one.result() for one in done)
            assert held <= limit
        for one in tasks:
            one.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(one is True or isinstance(one, asyncio.CancelledError) for one in ended)

    asyncio.run(play())
