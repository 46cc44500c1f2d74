"""The system's clock."""

import asyncio
from datetime import UTC, timedelta

from eventbus.clock import SystemClock


def test_the_wall_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()

    times = [clock.monotonic() for _ in range(100)]

    assert times == sorted(times)


def test_the_wall_clock_tells_the_time_of_the_machine() -> None:
    clock = SystemClock()

    earlier, later = clock.now(), clock.now()

    assert timedelta(0) <= later - earlier < timedelta(seconds=5)


async def test_a_sleep_takes_as_long_as_it_says_and_lets_others_run() -> None:
    clock = SystemClock()
    others: list[int] = []
    started = clock.monotonic()

    async with asyncio.TaskGroup() as group:
        sleeping = group.create_task(clock.sleep(0.01))
        group.create_task(asyncio.to_thread(others.append, 1))

    assert sleeping.done()
    assert others == [1]
    assert clock.monotonic() - started >= 0.0099


async def test_a_sleep_can_be_cancelled() -> None:
    async with asyncio.TaskGroup() as group:
        sleeping = group.create_task(SystemClock().sleep(3600))
        group.create_task(asyncio.to_thread(lambda: None)).add_done_callback(
            lambda _: sleeping.cancel()
        )

    assert sleeping.cancelled()
