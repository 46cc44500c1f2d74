"""What becomes of a delivery, by what its listener does."""

from datetime import timedelta
from typing import Any

import pytest

from eventbus.delivery import Outcome, Reason
from eventbus.drivers.base import Features
from eventbus.errors import (
    BackpressureError,
    Discard,
    Reject,
    RetryLater,
)
from eventbus.headers import lowered
from eventbus.middleware.base import Context
from eventbus.retry import Retry
from eventbus.telemetry.signals import (
    Settled,
)
from tests.unit.bench import (
    DLQ,
    RETRY,
    Bench,
    UserCreated,
    arriving,
    raising,
    welcome,
)
from tests.unit.conftest import START


async def test_a_listener_that_returns_has_its_event_acknowledged(bench: Bench) -> None:
    ending = await bench.handle(welcome)

    assert bench.driver.journal == ["ack"]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.attempt, ending.error) == (Outcome.OK, 1, None)


async def test_a_listener_gets_the_event_and_what_came_with_it(bench: Bench) -> None:
    got: list[Context] = []

    async def send(event: UserCreated, context: Context) -> None:
        got.append(context)

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message = arriving(x_tenant="a%20b", traceparent=trace)
    await bench.handle(send, bench.delivery(message, sequence=7))

    (context,) = got
    assert context.event == UserCreated(user_id="u-1")
    assert (context.id, context.name, context.version) == ("id-1", "user.created", 1)
    assert (context.key, context.time, context.source) == ("u-1", START, "user")
    assert (context.correlation_id, context.causation_id) == ("c-1", "id-0")
    assert (context.attempt, context.listener, context.service) == (1, "send", "mail")
    assert (context.headers, context.trace) == ({"x-tenant": "a b"}, {"traceparent": trace})
    assert (context.subject, context.stream, context.sequence) == (
        "events.user.created",
        "EVENTS",
        7,
    )


async def test_a_listener_that_raises_gets_its_event_again_after_the_delay(bench: Bench) -> None:
    error = ValueError("x")

    ending = await bench.handle(raising(error))

    assert bench.driver.journal == ["nak 2"]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.delay, ending.error) == (Outcome.RETRY, 2.0, error)
    assert (ending.attempt, ending.attempts) == (1, 3)


async def test_the_delay_is_drawn_by_chance(bench: Bench) -> None:
    bench.chance = 0.25

    await bench.handle(raising(ValueError()), retry=Retry(start=8))

    assert bench.driver.journal == ["nak 2"]


async def test_a_listener_may_discard_an_event(bench: Bench) -> None:
    ending = await bench.handle(raising(Discard("a test account")))

    assert bench.driver.journal == ["ack"]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.detail) == (Outcome.DROPPED, "a test account")


async def test_a_listener_may_reject_an_event(bench: Bench) -> None:
    ending = await bench.handle(raising(Reject("no such user")))

    assert bench.driver.journal == [DLQ, "term: dead letter: rejected"]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.reason) == (Outcome.DEAD, Reason.REJECTED)
    assert bench.letter().error_message == "no such user"


async def test_the_last_attempt_makes_a_dead_letter_before_the_original_is_terminated(
    bench: Bench,
) -> None:
    ending = await bench.handle(raising(ValueError("x")), retry=Retry(attempts=1))

    assert bench.driver.journal == [DLQ, "term: dead letter: exception"]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.reason) == (Outcome.DEAD, Reason.EXCEPTION)
    letter = bench.letter()
    assert (letter.reason, letter.error_type, letter.error_message) == (
        Reason.EXCEPTION,
        "ValueError",
        "x",
    )
    assert (letter.attempts, letter.listener, letter.service) == (1, "send", "mail")
    assert letter.original_subject == "events.user.created"


async def test_a_dead_letter_may_use_all_the_room_a_message_has(bench: Bench) -> None:
    await bench.handle(raising(Reject("x")))

    assert bench.driver.headrooms == [0]


async def test_a_long_delay_is_scheduled_for_this_listener_alone_before_the_ack(
    bench: Bench,
) -> None:
    message = arriving(nats_msg_id="id-1", x_tenant="a", x_name="Jürgen")

    ending = await bench.handle(raising(RetryLater("1h")), bench.delivery(message, sequence=7))

    assert bench.driver.journal == ["schedule events-sched.mail.send.7", "ack"]
    ((retry, at, _),) = bench.driver.scheduled
    assert at == START + timedelta(hours=1)
    assert retry.subject == RETRY + "user.created"
    assert retry.body == message.body
    assert lowered(retry.headers)["eventbus-attempt"] == "1"
    assert "nats-msg-id" not in retry.headers
    assert (retry.headers["x-tenant"], retry.headers["x-name"]) == ("a", "J%C3%BCrgen")
    assert retry.id is not None
    assert retry.id.startswith("park:mail__send:EVENTS:7:")
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.delay) == (Outcome.PARK, 3600.0)


async def test_each_attempt_is_parked_under_an_id_of_its_own(bench: Bench) -> None:
    parked = arriving(subject=RETRY + "user.created", eventbus_attempt="1")

    await bench.handle(raising(RetryLater("1h")))
    await bench.handle(raising(RetryLater("1h")), bench.delivery(parked))

    first, second = (retry for retry, _, _ in bench.driver.scheduled)
    assert first.id != second.id
    assert lowered(second.headers)["eventbus-attempt"] == "2"


async def test_what_can_not_be_scheduled_waits_where_it_is(bench: Bench) -> None:
    bench.driver.raises = [BackpressureError(stream="EVENTS_LATER", problem="full")]

    ending = await bench.handle(raising(RetryLater("1h")))

    assert bench.driver.journal == ["schedule failed", "nak 3600"]
    assert isinstance(ending, Settled)
    assert ending.outcome is Outcome.RETRY


async def test_a_driver_without_schedules_is_not_asked_for_one(bench: Bench) -> None:
    bench.driver.features = Features(durable=True, delay=True)

    await bench.handle(raising(RetryLater("1h")))

    assert bench.driver.journal == ["nak 3600"]


@pytest.mark.parametrize("after", ["soon", -1.0, 1e300], ids=str)
async def test_a_nonsensical_request_can_not_hold_up_an_event(bench: Bench, after: Any) -> None:
    await bench.handle(raising(RetryLater(after)))

    assert bench.driver.journal == ["nak 2"]
