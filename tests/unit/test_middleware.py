"""The onion, and the time limit that is a layer of it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from eventbus.correlation import Scope
from eventbus.drivers.base import Receipt
from eventbus.envelope import Envelope
from eventbus.errors import Discard, ListenerTimeoutError
from eventbus.event import Event
from eventbus.middleware.base import CallEmit, CallNext, Context, chain, chain_emit
from eventbus.middleware.timeout import Timeout


class UserCreated(Event, name="user.created"):
    user_id: str


EVENT = UserCreated(user_id="u-1")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CONTEXT = Context(
    event=EVENT,
    id="1",
    name="user.created",
    version=1,
    key=None,
    time=NOW,
    source="user",
    correlation_id="1",
    causation_id=None,
    attempt=1,
    listener="send",
    service="mail",
    headers={},
    tags=(),
    trace={},
    subject="events.user.created",
    stream="EVENTS",
    sequence=1,
    emit=None,  # type: ignore[arg-type]
)
ENVELOPE = Envelope.of(EVENT, source="user", time=NOW, id="1", scope=Scope())


class Noting:
    """Writes down when it begins and ends."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self._name = name
        self._journal = journal

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        self._journal.append(f"{self._name} begins")
        await call_next(context)
        self._journal.append(f"{self._name} ends")


async def test_the_first_middleware_is_the_outermost() -> None:
    journal: list[str] = []

    async def listener(context: Context) -> None:
        journal.append(f"listener of {context.id}")

    await chain([Noting("a", journal), Noting("b", journal)], listener)(CONTEXT)

    assert journal == ["a begins", "b begins", "listener of 1", "b ends", "a ends"]


async def test_a_middleware_may_end_the_run_before_the_listener() -> None:
    reached: list[str] = []

    async def listener(context: Context) -> None:
        reached.append("listener")

    async def gate(context: Context, call_next: CallNext) -> None:
        raise Discard("not today")

    with pytest.raises(Discard, match="not today"):
        await chain([gate], listener)(CONTEXT)

    assert reached == []


async def test_a_middleware_may_hand_on_another_context_or_call_again() -> None:
    seen: list[str] = []

    async def listener(context: Context) -> None:
        seen.append(context.id)

    async def twice(context: Context, call_next: CallNext) -> None:
        await call_next(context)
        await call_next(replace(context, id="2"))

    await chain([twice], listener)(CONTEXT)

    assert seen == ["1", "2"]


async def test_without_middleware_the_listener_is_called_as_it_is() -> None:
    async def listener(context: Context) -> None: ...

    assert chain([], listener) is listener


async def test_emit_middleware_may_change_the_envelope_and_the_receipt() -> None:
    published: list[Envelope] = []

    async def publish(envelope: Envelope) -> Receipt:
        published.append(envelope)
        return Receipt(envelope.id, "EVENTS", 1)

    async def tagging(envelope: Envelope, call_next: CallEmit) -> Receipt:
        return await call_next(replace(envelope, tags=(*envelope.tags, "seen")))

    async def renaming(envelope: Envelope, call_next: CallEmit) -> Receipt:
        return replace(await call_next(envelope), driver="renamed")

    receipt = await chain_emit([renaming, tagging], publish)(ENVELOPE)

    assert [one.tags for one in published] == [("seen",)]
    assert receipt == Receipt("1", "EVENTS", 1, driver="renamed")


async def test_a_run_beyond_its_limit_is_cancelled_and_raises() -> None:
    ended: list[str] = []

    async def endless(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(ListenerTimeoutError) as raised:
        await Timeout(0.01)(CONTEXT, endless)

    assert ended == ["cancelled"]
    assert (raised.value.listener, raised.value.limit) == ("send", 0.01)


async def test_a_run_within_its_limit_is_left_alone() -> None:
    ran: list[str] = []

    async def quick(context: Context) -> None:
        ran.append(context.id)

    await Timeout(60)(CONTEXT, quick)

    assert ran == ["1"]


async def test_a_timeout_error_of_the_listeners_own_stays_what_it_is() -> None:
    async def impatient(context: Context) -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError) as raised:
        await Timeout(60)(CONTEXT, impatient)

    assert type(raised.value) is TimeoutError


async def test_an_error_of_the_listener_passes_through() -> None:
    async def broken(context: Context) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Timeout(60)(CONTEXT, broken)


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    async def endless(context: Context) -> None:
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(Timeout(60)(CONTEXT, endless))
        await asyncio.sleep(0)
        task.cancel()

    assert task.cancelled()


async def test_a_listener_that_uses_up_its_cancellation_has_still_ended() -> None:
    async def stubborn(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    await Timeout(0.01)(CONTEXT, stubborn)
