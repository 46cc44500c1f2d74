"""Blocking functions as listeners: in a thread, with a thread's limits."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from eventbus.declaration import subscription
from eventbus.delivery import Outcome
from eventbus.errors import DeclarationError, ListenerTimeoutError, Reject
from eventbus.event import Event
from eventbus.middleware.base import Context
from eventbus.telemetry.signals import Settled
from eventbus.thread import in_loop, in_thread
from tests.unit.bench import Bench, EmailSent, UserCreated, arriving

PATIENCE = 5.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a thread can't set an asyncio.Event
            await asyncio.sleep(0.001)


async def test_the_function_runs_in_another_thread_while_the_loop_goes_on(bench: Bench) -> None:
    goes_on = threading.Event()
    names: list[str] = []

    @in_thread
    def render(event: UserCreated) -> None:
        names.append(threading.current_thread().name)
        assert goes_on.wait(PATIENCE)

    async with asyncio.TaskGroup() as group:
        group.create_task(bench.handle(render))
        await until(lambda: bool(names))
        goes_on.set()

    assert names == ["render-1"]
    assert bench.driver.journal == ["ack"]


def first(event: UserCreated) -> None:
    """Take the event."""


def with_context(event: UserCreated, context: Context) -> None:
    """Take the context too."""


@pytest.mark.parametrize("function", [first, with_context])
def test_its_name_and_its_annotations_are_those_of_the_function(
    function: Callable[..., None],
) -> None:
    one = subscription("mail", "user.*", in_thread(function), {})

    assert (one.listener, one.accepts) == (function.__name__, (UserCreated,))


def test_annotations_that_are_written_as_text_are_found_where_the_function_is() -> None:
    def send(event: "UserCreated", context: "Context") -> None: ...

    one = subscription("mail", "user.created", in_thread(send), {})

    assert one.accepts == (UserCreated,)


async def test_it_gets_event_and_context(bench: Bench) -> None:
    got: list[object] = []

    @in_thread
    def send(event: UserCreated, context: Context) -> None:
        got.extend((event, context.id))

    await bench.handle(send)

    assert got == [UserCreated(user_id="u-1"), "id-1"]


@pytest.mark.parametrize("error", [ValueError("x"), StopIteration("x")], ids=repr)
async def test_what_it_raises_counts_as_raised_by_the_listener(
    bench: Bench, error: Exception
) -> None:
    @in_thread
    def send(event: UserCreated) -> None:
        raise error

    ending = await bench.handle(send)

    assert isinstance(ending, Settled)
    assert ending.outcome is Outcome.RETRY
    assert ending.error is not None
    assert error in (ending.error, ending.error.__cause__)


async def test_its_signals_are_obeyed_and_its_letter_names_its_own_line(bench: Bench) -> None:
    @in_thread
    def send(event: UserCreated) -> None:
        raise Reject("no such user")

    await bench.handle(send)

    assert bench.letter().reason == "rejected"
    assert "in send\n    raise Reject" in bench.letter().error_stack


async def test_what_it_emits_through_the_loop_belongs_to_the_story(bench: Bench) -> None:
    receipts: list[object] = []

    @in_thread
    def send(event: UserCreated, context: Context) -> None:
        receipts.append(in_loop(context.emit(EmailSent(to="ada@example.org"))))

    await bench.handle(send)
    await bench.handle(send, bench.delivery(arriving()))

    first, again = bench.driver.published
    assert first.headers["ce-causationid"] == "id-1"
    assert first.headers["ce-correlationid"] == "c-1"
    assert first.id == again.id
    assert len(receipts) == 2


async def test_what_the_loop_raises_is_raised_in_the_thread(bench: Bench) -> None:
    caught: list[Exception] = []

    async def broken() -> None:
        raise LookupError("x")

    @in_thread
    def send(event: UserCreated) -> None:
        try:
            in_loop(broken())
        except LookupError as exc:
            caught.append(exc)

    await bench.handle(send)

    assert [str(one) for one in caught] == ["x"]


async def nothing() -> None:
    """Do nothing."""


async def test_the_loop_is_not_asked_from_itself_or_from_anywhere_else() -> None:
    problems: list[str] = []

    def ask() -> None:
        try:
            in_loop(nothing())
        except RuntimeError as exc:
            problems.append(str(exc))

    async def asks() -> None:
        ask()

    @in_thread
    def send(event: Event) -> None:
        in_loop(asks())

    ask()
    await asyncio.to_thread(ask)
    await send(UserCreated(user_id="u-1"))

    assert len(problems) == 3
    assert all("in_loop() is for functions in_thread() runs" in one for one in problems)


async def test_at_the_time_limit_the_attempt_fails_and_the_thread_goes_on(bench: Bench) -> None:
    goes_on = threading.Event()
    ended: list[str] = []

    @in_thread
    def send(event: UserCreated) -> None:
        goes_on.wait(PATIENCE)
        ended.append("by itself")

    ending = await bench.handle(send, timeout=0.01)

    assert isinstance(ending, Settled)
    assert isinstance(ending.error, ListenerTimeoutError)
    assert ended == []
    goes_on.set()
    await until(lambda: ended == ["by itself"])


async def test_no_more_than_so_many_run_at_once_those_left_alone_included() -> None:
    goes_on = threading.Event()
    running: list[str] = []

    def block(event: Event) -> None:
        running.append(threading.current_thread().name)
        goes_on.wait(PATIENCE)

    event = UserCreated(user_id="u-1")
    listener = in_thread(block, threads=2)
    left_alone = asyncio.timeout(0.01)
    with pytest.raises(TimeoutError):
        async with left_alone:
            await listener(event)
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(_run(listener, event))
        await until(lambda: len(running) == 2)
        goes_on.set()

    assert len(running) == 3
    assert set(running) == {"block-1", "block-2"}


async def _run(listener: Any, event: Event) -> None:
    await listener(event)


async def test_what_still_waits_for_a_thread_when_it_is_cancelled_never_starts() -> None:
    goes_on = threading.Event()
    started: list[str] = []

    def block(event: UserCreated) -> None:
        started.append(event.user_id)
        goes_on.wait(PATIENCE)

    listener = in_thread(block, threads=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(listener, UserCreated(user_id="first")))
        await until(lambda: started == ["first"])
        waiting = group.create_task(_run(listener, UserCreated(user_id="waiting")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        goes_on.set()
    await listener(UserCreated(user_id="last"))

    assert started == ["first", "last"]


async def test_a_thread_that_is_free_is_used_again() -> None:
    def brief(event: Event) -> None: ...

    listener = in_thread(brief)
    for _ in range(20):
        await listener(UserCreated(user_id="u-1"))

    made = [one for one in threading.enumerate() if one.name.startswith("brief-")]
    assert 1 <= len(made) < 20


async def test_an_idle_thread_keeps_nothing_alive() -> None:
    class Payload(Event, name="payload.sent"):
        text: str

    listener = in_thread(first_of(Payload))
    await listener(Payload(text="x"))

    def is_gone() -> bool:
        gc.collect()
        return not [one for one in gc.get_objects() if type(one) is Payload]

    await until(is_gone)


def first_of(_: type[Event]) -> Callable[[Event], None]:
    def take(event: Event) -> None: ...

    return take


def test_what_makes_no_sense_is_refused_where_it_is_written() -> None:
    async def send(event: UserCreated) -> None: ...

    with pytest.raises(DeclarationError, match=r"in_thread\(send\): it is async already"):
        in_thread(send)  # type: ignore[arg-type]
    for threads in (0, -1, 1.5, True, "2"):
        with pytest.raises(DeclarationError, match=r"in_thread\(first, threads="):
            in_thread(first, threads=threads)  # type: ignore[arg-type]


HUNG = """
import asyncio, threading
from eventbus import Event, in_thread

class Asked(Event, name="user.asked"): ...

@in_thread
def hang(event: Asked) -> None:
    threading.Event().wait()

async def main() -> None:
    try:
        async with asyncio.timeout(0.05):
            await hang(Asked())
    except TimeoutError:
        print("goes on")

asyncio.run(main())
"""


def test_the_end_of_the_process_waits_for_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HUNG],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("goes on\n", "")
