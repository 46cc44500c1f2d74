"""What becomes of a message that no listener gets."""

from dataclasses import replace

import pytest

from eventbus.attempts import History
from eventbus.delivery import Outcome, Reason
from eventbus.envelope import Message
from eventbus.event import Event, UnknownEvent
from eventbus.judging import UNKNOWN_DELAY, UNKNOWN_PATIENCE
from eventbus.telemetry.signals import (
    Settled,
)
from tests.unit.bench import (
    DLQ,
    RETRY,
    Bench,
    EmailSent,
    UserCreated,
    UserCreatedV2,
    arriving,
    raising,
    welcome,
)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (replace(arriving(), body=b"{"), "user.created"),
        (replace(arriving(), body=b"{}"), "user.created"),
        (replace(arriving(), headers={}), "user.created"),
        (arriving(ce_type="user.deleted"), "user.created"),
        (arriving(subject="events.strange"), "unknown"),
        (arriving(subject="events.Üser.created"), "unknown"),
        (arriving(subject="elsewhere.user.created"), "unknown"),
        (arriving(ce_time="0001-01-01T00:00:00+23:59", content_type="text/plain"), "user.created"),
    ],
    ids=[
        "no JSON",
        "missing fields",
        "no headers",
        "another type",
        "one token",
        "no ASCII",
        "no event subject",
        "no JSON type",
    ],
)
async def test_a_message_that_is_no_event_is_a_dead_letter_at_once(
    bench: Bench, message: Message, name: str
) -> None:
    ending = await bench.handle(welcome, bench.delivery(message))

    assert bench.driver.journal == [
        f"publish events-dlq.mail.send.{name}",
        "term: dead letter: invalid",
    ]
    assert isinstance(ending, Settled)
    assert (ending.name, ending.outcome, ending.reason) == (name, Outcome.DEAD, Reason.INVALID)
    assert ending.duration == 0.0
    letter = bench.letter()
    assert bench.driver.published[0].body == message.body
    assert letter.attempts == 0
    assert letter.original_subject == message.subject


async def test_the_letter_of_a_parked_event_names_the_events_own_subject(bench: Bench) -> None:
    message = arriving(subject=RETRY + "user.created", eventbus_attempt="2")

    await bench.handle(raising(ValueError()), bench.delivery(message))

    assert bench.letter().original_subject == "events.user.created"


async def test_an_event_that_nobody_declared_waits_for_a_deploy_without_counting(
    bench: Bench,
) -> None:
    message = arriving(ce_dataschema="user.created/v1")
    bench.target = UserCreatedV2

    ending = await bench.handle(_v2, bench.delivery(message))

    assert bench.driver.journal == [f"nak {UNKNOWN_DELAY:g}"]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.attempt) == (Outcome.RETRY, 0)
    assert bench.driver.attempts.histories == {"mail__send.EVENTS.1": History(settled=1)}


async def _v2(event: UserCreatedV2) -> None: ...


async def test_after_the_deploy_its_first_run_is_the_first_attempt(bench: Bench) -> None:
    bench.target, declared = UserCreatedV2, arriving(UserCreatedV2(user_id="u-1"))
    undeclared = arriving(ce_dataschema="user.created/v1")

    for deliveries in range(1, 6):
        await bench.handle(_v2, bench.delivery(undeclared, deliveries=deliveries))
    ending = await bench.handle(_v2, bench.delivery(declared, deliveries=6))

    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.attempt) == (Outcome.OK, 1)


async def test_waiting_for_a_deploy_forgets_no_attempt(bench: Bench) -> None:
    # A roll-back: the process that failed knew the event, this one doesn't.
    place = "mail__send.EVENTS.1"
    bench.driver.attempts.histories[place] = History(failed=2, settled=2)
    bench.target = UserCreatedV2

    message = arriving(ce_dataschema="user.created/v1")
    await bench.handle(_v2, bench.delivery(message, deliveries=3))

    assert bench.driver.attempts.histories[place] == History(failed=2, settled=3)


async def test_an_event_that_nobody_declared_for_too_long_is_a_dead_letter(bench: Bench) -> None:
    bench.target = UserCreatedV2
    bench.clock.move(UNKNOWN_PATIENCE.total_seconds())

    ending = await bench.handle(_v2, bench.delivery(arriving(ce_dataschema="user.created/v1")))

    assert bench.driver.journal == [DLQ, "term: dead letter: unknown_event"]
    assert isinstance(ending, Settled)
    assert ending.reason is Reason.UNKNOWN_EVENT


async def test_a_listener_of_named_events_waits_for_the_class_of_another(bench: Bench) -> None:
    bench.target = "*.*"

    ending = await bench.handle(welcome, bench.delivery(arriving(EmailSent(to="a"))))

    assert bench.driver.journal == [f"nak {UNKNOWN_DELAY:g}"]
    assert isinstance(ending, Settled)
    assert ending.outcome is Outcome.RETRY


async def test_a_listener_of_any_event_gets_one_that_nobody_declared(bench: Bench) -> None:
    got: list[Event] = []

    async def send(event: Event) -> None:
        got.append(event)

    bench.target = "*.sent"
    await bench.handle(send, bench.delivery(arriving(EmailSent(to="a"))))

    assert got == [UnknownEvent(name="email.sent", version=1, data={"to": "a"})]


async def test_an_older_version_is_not_handed_to_a_listener_of_the_newer(bench: Bench) -> None:
    got: list[Event] = []

    async def send(event: UserCreatedV2) -> None:
        got.append(event)

    bench.target = UserCreatedV2
    bench.registry.register(UserCreated)
    ending = await bench.handle(send)

    assert got == []
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.reason) == (Outcome.DEAD, Reason.INVALID)
    assert bench.letter().error_type == "schema.upcast"


async def test_an_expired_event_is_a_dead_letter_and_runs_no_more(bench: Bench) -> None:
    message = arriving(eventbus_expires="2026-03-01T10:00:00Z")

    ending = await bench.handle(raising(AssertionError("it ran")), bench.delivery(message))

    assert bench.driver.journal == [DLQ, "term: dead letter: expired"]
    assert isinstance(ending, Settled)
    assert ending.reason is Reason.EXPIRED
    assert "2026-03-01T10:00:00.000000Z" in ending.detail


async def test_an_event_that_expires_later_runs(bench: Bench) -> None:
    message = arriving(eventbus_expires="2026-03-01T10:00:01Z")

    await bench.handle(welcome, bench.delivery(message))

    assert bench.driver.journal == ["ack"]
