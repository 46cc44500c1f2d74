"""A listener that is cancelled, cancels itself, or runs too long."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventbus.attempts import History
from eventbus.delivery import Outcome, Reason
from eventbus.errors import (
    ListenerTimeoutError,
    NotConnectedError,
)
from eventbus.retry import Retry
from eventbus.telemetry.signals import (
    Happened,
    ListenerStarted,
    Received,
    Returned,
    Settled,
    Stuck,
)
from tests.unit.bench import (
    Bench,
    UserCreated,
    raising,
    welcome,
)


async def cancelled(
    bench: Bench, listener: Callable[..., Awaitable[None]], **changes: Any
) -> Settled | Returned | Stuck:
    """Cancel a delivery's task once the listener runs; return how it ended."""
    task: list[asyncio.Task[None]] = []
    started = asyncio.Event()

    def watch(happened: Happened) -> None:
        if isinstance(happened, ListenerStarted):
            started.set()

    bench.told = Told(watch)
    async with asyncio.TaskGroup() as group:
        task.append(
            group.create_task(bench.run(bench.dispatcher(listener), bench.delivery(**changes)))
        )
        await started.wait()
        await asyncio.sleep(0)
        task[0].cancel()
    (ending,) = (one for one in bench.told if isinstance(one, Settled | Returned | Stuck))
    assert task[0].cancelled() is isinstance(ending, Returned)
    return ending


class Told(list[Happened]):
    """A list that also tells."""

    def __init__(self, watch: Callable[[Happened], None]) -> None:
        super().__init__()
        self._watch = watch

    def append(self, happened: Happened) -> None:
        """Take it and tell."""
        super().append(happened)
        self._watch(happened)


async def _hangs(event: UserCreated) -> None:
    await asyncio.Event().wait()


async def test_a_cancelled_listeners_event_goes_back_at_once(bench: Bench) -> None:
    ending = await cancelled(bench, _hangs)

    assert bench.driver.journal == ["nak 0"]
    assert ending == Returned("user.created", "mail", "send")


async def test_being_cancelled_is_no_attempt_and_no_suspicion(bench: Bench) -> None:
    await cancelled(bench, _hangs)
    bench.told = []

    ending = await bench.handle(welcome, bench.delivery(deliveries=2))

    assert isinstance(ending, Settled)
    assert ending.attempt == 1
    assert bench.driver.attempts.writes == [History(settled=1)]


async def test_what_a_listener_raises_on_its_way_out_is_no_failure(bench: Bench) -> None:
    async def send(event: UserCreated) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("the connection was closed while in use")

    ending = await cancelled(bench, send)

    assert bench.driver.journal == ["nak 0"]
    assert isinstance(ending, Returned)


async def test_what_the_tasks_of_a_listener_raise_on_their_way_out_is_no_failure(
    bench: Bench,
) -> None:
    async def step() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("rolled back")

    async def send(event: UserCreated) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(step())

    ending = await cancelled(bench, send)

    assert isinstance(ending, Returned)


async def test_a_listener_that_finishes_though_it_is_cancelled_is_done(bench: Bench) -> None:
    async def send(event: UserCreated) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    ending = await cancelled(bench, send)

    assert bench.driver.journal == ["ack"]
    assert isinstance(ending, Settled)
    assert ending.outcome is Outcome.OK


async def test_a_stop_while_the_server_is_away_ends_as_a_cancellation(bench: Bench) -> None:
    bench.driver.attempts.fails = NotConnectedError("away")

    ending = await cancelled(bench, _hangs, fails={"nak": NotConnectedError("away")})

    assert isinstance(ending, Returned)


async def test_a_listener_cancelled_by_its_own_code_has_failed(bench: Bench) -> None:
    async def send(event: UserCreated) -> None:
        async with asyncio.TaskGroup() as group:
            inner = group.create_task(asyncio.Event().wait())
            inner.cancel()
        await inner

    ending = await bench.handle(send)

    assert bench.driver.journal == ["nak 2"]
    assert isinstance(ending, Settled)
    assert "cancelled by its own code" in str(ending.error)


async def test_a_listener_that_runs_too_long_has_failed_by_timeout(bench: Bench) -> None:
    ending = await bench.handle(_hangs, timeout=0.01)

    assert bench.driver.journal == ["nak 2"]
    assert isinstance(ending, Settled)
    assert isinstance(ending.error, ListenerTimeoutError)


async def test_the_last_timeout_is_the_reason_of_the_letter(bench: Bench) -> None:
    ending = await bench.handle(_hangs, timeout=0.01, retry=Retry(attempts=1))

    assert isinstance(ending, Settled)
    assert ending.reason is Reason.TIMEOUT
    assert bench.letter().error_type == "listener.timeout"


async def test_a_timeout_of_the_listeners_own_is_an_exception_like_others(bench: Bench) -> None:
    ending = await bench.handle(raising(TimeoutError("slow api")), retry=Retry(attempts=1))

    assert isinstance(ending, Settled)
    assert ending.reason is Reason.EXCEPTION
    assert bench.letter().error_type == "TimeoutError"


class _Exit(BaseException):
    """What isn't an Exception, such as SystemExit."""


async def test_what_is_no_exception_is_not_settled_and_goes_its_way(bench: Bench) -> None:
    with pytest.raises(_Exit):
        await bench.run(bench.dispatcher(raising(_Exit())), bench.delivery())

    assert bench.driver.journal == []
    assert [type(one) for one in bench.told] == [Received, ListenerStarted]
