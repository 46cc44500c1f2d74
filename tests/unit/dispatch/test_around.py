"""What is around a run: middleware, what is told of it, and what it hands on."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from eventbus.correlation import Scope, current_scope
from eventbus.delivery import Outcome
from eventbus.errors import (
    Discard,
)
from eventbus.middleware.base import CallNext, Context
from eventbus.telemetry.signals import (
    ListenerStarted,
    Received,
    Settled,
)
from tests.unit.bench import (
    Bench,
    EmailSent,
    UserCreated,
    arriving,
    raising,
    welcome,
)
from tests.unit.conftest import START


async def test_middleware_of_the_service_is_around_that_of_the_listener(bench: Bench) -> None:
    order: list[str] = []

    def layer(name: str) -> Any:
        async def middleware(context: Context, call_next: CallNext) -> None:
            order.append(name)
            await call_next(context)

        return middleware

    bench.middleware = (layer("service 1"), layer("service 2"))
    await bench.handle(welcome, middleware=(layer("listener"),))

    assert order == ["service 1", "service 2", "listener"]


async def test_what_middleware_raises_counts_as_the_listeners(bench: Bench) -> None:
    async def gate(context: Context, call_next: CallNext) -> None:
        raise Discard("closed")

    ending = await bench.handle(raising(AssertionError("it ran")), middleware=(gate,))

    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.detail) == (Outcome.DROPPED, "closed")


async def test_what_happens_is_told_in_order_with_what_is_known(bench: Bench) -> None:
    async def send(event: UserCreated) -> None:
        bench.clock.move(0.25)

    bench.clock.move(1)
    await bench.run(bench.dispatcher(send), bench.delivery(sequence=7))

    assert bench.told == [
        Received("user.created", "mail", "send", redelivered=False),
        ListenerStarted("user.created", "id-1", "mail", "send", 1, "c-1"),
        Settled(
            name="user.created",
            id="id-1",
            service="mail",
            listener="send",
            outcome=Outcome.OK,
            attempt=1,
            attempts=3,
            duration=0.25,
            end_to_end=1.25,
            correlation_id="c-1",
            causation_id="id-0",
            stream="EVENTS",
            sequence=7,
            subject="events.user.created",
            emitted_at=START,
        ),
    ]


async def test_a_redelivery_is_told_as_one(bench: Bench) -> None:
    await bench.dispatcher(welcome)(bench.delivery(deliveries=2))

    assert bench.told[0] == Received("user.created", "mail", "send", redelivered=True)


async def test_what_a_listener_emits_belongs_to_the_event_it_handles(bench: Bench) -> None:
    async def send(event: UserCreated, context: Context) -> None:
        await context.emit(EmailSent(to="a"))

    await bench.handle(send)

    (message,) = bench.driver.published
    assert message.headers["ce-correlationid"] == "c-1"
    assert message.headers["ce-causationid"] == "id-1"


async def test_a_listener_that_runs_again_emits_under_the_same_ids(bench: Bench) -> None:
    async def send(event: UserCreated, context: Context) -> None:
        for to in ("a", "b", "a"):
            await context.emit(EmailSent(to=to))

    await bench.handle(send)
    await bench.handle(send, bench.delivery(deliveries=2))

    ids = [message.id for message in bench.driver.published]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3


async def test_another_listener_of_the_same_event_emits_under_ids_of_its_own(
    bench: Bench,
) -> None:
    async def send(event: UserCreated, context: Context) -> None:
        await context.emit(EmailSent(to="a"))

    await bench.handle(send)
    await bench.handle(send, name="copy")

    first, second = bench.driver.published
    assert first.id != second.id


async def test_the_scope_of_a_run_ends_with_it(bench: Bench) -> None:
    await bench.handle(raising(ValueError()))

    assert current_scope() == Scope()


async def test_listeners_that_run_at_once_do_not_share_a_scope(bench: Bench) -> None:
    async def send(event: UserCreated, context: Context) -> None:
        await asyncio.sleep(0)
        await context.emit(EmailSent(to=event.user_id))

    dispatcher = bench.dispatcher(send)
    deliveries = [
        bench.delivery(
            arriving(UserCreated(user_id=name), ce_id=name, ce_correlationid=f"c-{name}")
        )
        for name in ("a", "b", "c")
    ]
    async with asyncio.TaskGroup() as group:
        for one in deliveries:
            group.create_task(dispatcher(one))

    causes = {
        (message.headers["ce-causationid"], message.headers["ce-correlationid"], message.body)
        for message in bench.driver.published
    }
    assert causes == {(one, f"c-{one}", b'{"to":"%b"}' % one.encode()) for one in ("a", "b", "c")}


@pytest.mark.parametrize("body", [bytes(range(256)), b"\xff" * 10, b'{"user_id":"' + b"x" * 100])
async def test_the_body_of_a_dead_letter_is_the_original_byte_for_byte(
    bench: Bench, body: bytes
) -> None:
    await bench.handle(welcome, bench.delivery(replace(arriving(), body=body)))

    assert bench.driver.published[0].body == body
