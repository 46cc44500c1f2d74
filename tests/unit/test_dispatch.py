"""One delivery: what becomes of it, in which order it is settled, and what is told."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from eventbus import codec, deadletter
from eventbus.attempts import History, Verdict, judge
from eventbus.correlation import Scope, current_scope
from eventbus.declaration import subscription
from eventbus.delivery import Outcome, Reason
from eventbus.dispatch import Dispatcher
from eventbus.drivers.base import Features, Receipt
from eventbus.emission import Emitter, Publishing
from eventbus.envelope import Envelope, Message
from eventbus.errors import (
    BackpressureError,
    Discard,
    EmitUnknown,
    ListenerTimeoutError,
    NotConnectedError,
    PayloadTooLargeError,
    Reject,
    RetryLater,
    SettleError,
    SubjectError,
)
from eventbus.event import Event, UnknownEvent
from eventbus.headers import lowered
from eventbus.judging import UNKNOWN_DELAY, UNKNOWN_PATIENCE
from eventbus.middleware.base import CallNext, Context, EmitOptions
from eventbus.registry import Registry
from eventbus.retry import Retry
from eventbus.settlement import STAY_DELAY
from eventbus.subject import Subjects
from eventbus.telemetry.signals import (
    Happened,
    ListenerStarted,
    Observers,
    Received,
    Returned,
    Settled,
    Stuck,
)
from eventbus.wiring import Wiring
from tests.unit.conftest import START, FakeDelivery, RecordingDriver, StillClock

SUBJECTS = Subjects()
RETRY = "events-retry.mail.send."
DLQ = "publish events-dlq.mail.send.user.created"


class UserCreated(Event, name="user.created", key="user_id"):
    user_id: str


class UserCreatedV2(Event, name="user.created", version=2, key="user_id"):
    user_id: str


class EmailSent(Event, name="email.sent"):
    to: str


@dataclass
class Bench:
    """A dispatcher of listener ``send`` of service ``mail``, and what it does to a delivery."""

    driver: RecordingDriver
    clock: StillClock
    told: list[Happened] = field(default_factory=list)
    registry: Registry = field(default_factory=Registry)
    target: type[Event] | str = UserCreated
    middleware: tuple[Any, ...] = ()
    chance: float = 0.5

    def delivery(self, message: Message | None = None, **changes: Any) -> FakeDelivery:
        message = arriving() if message is None else message
        return FakeDelivery(message, journal=self.driver.journal, **changes)

    def dispatcher(self, listener: Callable[..., Awaitable[None]], **options: Any) -> Dispatcher:
        given: Any = {"name": "send", **options}
        one = subscription("mail", self.target, listener, given)
        one.register(self.registry)
        observers = Observers([_raise, self.told.append])
        emitter = Emitter(
            Publishing(
                driver=self.driver,
                subjects=SUBJECTS,
                source="mail",
                clock=self.clock,
                observe=observers,
                middleware=(),
            )
        )

        async def emit(event: Any, _data: Any = None, /, **given: Any) -> Receipt:
            options: EmitOptions = given  # type: ignore[assignment]
            return await emitter.emit(event, options)

        return Dispatcher(
            one,
            Wiring(
                driver=self.driver,
                registry=self.registry,
                subjects=SUBJECTS,
                observe=observers,
                clock=self.clock,
                emit=emit,
                middleware=self.middleware,
                retry=Retry(attempts=3, start=2, jitter="none"),
                park_after=30.0,
                chance=lambda: self.chance,
            ),
        )

    async def handle(
        self,
        listener: Callable[..., Awaitable[None]],
        delivery: FakeDelivery | None = None,
        **options: Any,
    ) -> Settled | Returned | Stuck:
        """Dispatch a delivery and return the record of how it ended; there must be one."""
        await self.dispatcher(listener, **options)(delivery or self.delivery())
        (ending,) = (one for one in self.told if isinstance(one, Settled | Returned | Stuck))
        self.told.clear()
        return ending

    def letter(self) -> deadletter.Failure:
        """Return what the one dead letter says."""
        (message,) = self.driver.published
        return deadletter.read(message)


def _raise(_: Happened) -> None:
    raise RuntimeError("an observer that fails changes nothing")


@pytest.fixture
def bench(driver: RecordingDriver, clock: StillClock) -> Bench:
    """Give a bench with an observer that always raises before the one that watches."""
    return Bench(driver, clock)


def arriving(event: Event | None = None, subject: str = "", **headers: str) -> Message:
    """Return a message as a consumer hands it over."""
    event = event or UserCreated(user_id="u-1")
    scope = Scope("c-1", "id-0")
    envelope = Envelope.of(event, source="user", time=START, id="id-1", scope=scope)
    message = codec.encode(envelope, subject or SUBJECTS.event(envelope.name))
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(message, headers={**lowered(message.headers), **extra})


async def welcome(event: UserCreated) -> None:
    """Do what is to be done."""


def raising(error: BaseException) -> Callable[..., Awaitable[None]]:
    """Return a listener that raises."""

    async def send(event: UserCreated) -> None:
        raise error

    return send


# What becomes of it ---------------------------------------------------------------------------


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


# Attempts -------------------------------------------------------------------------------------


async def test_a_first_success_asks_and_writes_no_record_of_attempts(bench: Bench) -> None:
    bench.driver.attempts.fails = NotConnectedError("away")

    await bench.handle(welcome)

    assert bench.driver.journal == ["ack"]


async def test_each_failure_is_recorded_and_the_next_run_is_the_next_attempt(bench: Bench) -> None:
    seen: list[int] = []

    async def send(event: UserCreated, context: Context) -> None:
        seen.append(context.attempt)
        raise ValueError("x")

    for deliveries in (1, 2, 3):
        await bench.handle(send, bench.delivery(deliveries=deliveries))

    assert seen == [1, 2, 3]
    assert bench.driver.journal == ["nak 2", "nak 4", DLQ, "term: dead letter: exception"]
    assert bench.letter().attempts == 3
    assert bench.driver.attempts.histories == {}


async def test_a_late_success_leaves_no_record(bench: Bench) -> None:
    await bench.handle(raising(ValueError()))
    await bench.handle(welcome, bench.delivery(deliveries=2))

    assert bench.driver.attempts.histories == {}


async def test_a_parked_event_carries_its_attempts(bench: Bench) -> None:
    seen: list[int] = []

    async def send(event: UserCreated, context: Context) -> None:
        seen.append(context.attempt)

    message = arriving(subject=RETRY + "user.created", eventbus_attempt="2")
    await bench.handle(send, bench.delivery(message))

    assert seen == [3]


async def test_a_producer_can_not_use_up_attempts_of_an_event(bench: Bench) -> None:
    ending = await bench.handle(welcome, bench.delivery(arriving(eventbus_attempt="999")))

    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.attempt) == (Outcome.OK, 1)


async def test_a_run_that_left_no_outcome_is_marked_before_it_is_repeated(bench: Bench) -> None:
    seen: list[History] = []

    async def send(event: UserCreated) -> None:
        seen.extend(bench.driver.attempts.writes)

    ending = await bench.handle(send, bench.delivery(deliveries=2))

    assert seen == [History(started=2)]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.attempt) == (Outcome.OK, 1)


async def test_a_suspect_does_not_run_where_its_mark_can_not_be_written(bench: Bench) -> None:
    ran: list[int] = []

    async def send(event: UserCreated) -> None:
        ran.append(1)

    bench.driver.attempts.fails = NotConnectedError("away")
    ending = await bench.handle(send, bench.delivery(deliveries=2))

    assert ran == []
    assert bench.driver.journal == [f"nak {STAY_DELAY:g}"]
    assert isinstance(ending, Stuck)


async def test_suspects_run_one_at_a_time_and_others_beside_them(bench: Bench) -> None:
    running: set[str] = set()
    most: list[set[str]] = []
    two_run, let_go = asyncio.Event(), asyncio.Event()

    async def send(event: UserCreated) -> None:
        running.add(event.user_id)
        most.append(set(running))
        if len(most) == 2:
            two_run.set()
        await let_go.wait()
        running.discard(event.user_id)

    dispatcher = bench.dispatcher(send)
    suspects = [
        bench.delivery(arriving(UserCreated(user_id=name)), deliveries=2, sequence=number)
        for number, name in enumerate(("suspect 1", "suspect 2"))
    ]
    async with asyncio.TaskGroup() as group:
        for one in (*suspects, bench.delivery(arriving(UserCreated(user_id="other")))):
            group.create_task(dispatcher(one))
        await two_run.wait()
        let_go.set()

    assert not any({"suspect 1", "suspect 2"} <= together for together in most)
    assert any("other" in together and len(together) == 2 for together in most)
    assert [one for one in bench.driver.journal if one != "in progress"] == ["ack"] * 3


async def test_a_suspect_runs_only_once_the_one_before_is_settled(bench: Bench) -> None:
    happened: list[str] = []

    async def send(event: UserCreated) -> None:
        happened.append(f"{event.user_id} runs")

    class Slow(FakeDelivery):
        async def ack(self) -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            happened.append(f"{self.sequence} is settled")

    dispatcher = bench.dispatcher(send)
    async with asyncio.TaskGroup() as group:
        for number in (1, 2):
            message = arriving(UserCreated(user_id=str(number)))
            group.create_task(dispatcher(Slow(message, deliveries=2, sequence=number)))

    assert happened == ["1 runs", "1 is settled", "2 runs", "2 is settled"]


async def test_a_suspect_that_waited_for_longer_than_its_lease_is_neither_run_nor_marked(
    bench: Bench,
) -> None:
    ran: list[str] = []
    waited = bench.delivery(arriving(UserCreated(user_id="2")), deliveries=2, sequence=2)

    async def send(event: UserCreated) -> None:
        ran.append(event.user_id)
        waited.lost = True

    dispatcher = bench.dispatcher(send)
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher(bench.delivery(deliveries=2)))
        group.create_task(dispatcher(waited))

    assert ran == ["u-1"]
    assert bench.driver.attempts.writes == [History(started=2)]


async def test_a_suspect_that_is_lost_while_it_is_marked_is_not_blamed(bench: Bench) -> None:
    ran: list[str] = []
    delivery = bench.delivery(deliveries=2)
    log = bench.driver.attempts

    async def send(event: UserCreated) -> None:
        ran.append(event.user_id)

    async def write(place: str, history: History) -> None:
        log.histories[place] = history
        delivery.lost = True

    log.write = write  # type: ignore[method-assign]
    await bench.handle(send, delivery)

    assert ran == []
    (history,) = log.histories.values()
    assert judge(history, deliveries=3) == Verdict(1, history=history)


@pytest.mark.parametrize("raised", [ValueError("no"), RetryLater(after=60), Reject("no")])
async def test_what_isnt_ours_any_more_is_settled_by_whoever_has_it(
    bench: Bench, raised: Exception
) -> None:
    delivery = bench.delivery()

    async def send(event: UserCreated) -> None:
        delivery.lost = True
        raise raised

    ending = await bench.handle(send, delivery)

    assert isinstance(ending, Stuck)
    assert bench.driver.published == bench.driver.scheduled == []
    assert bench.driver.attempts.writes == []


async def test_an_event_that_is_lost_while_its_letter_is_stored_keeps_its_record(
    bench: Bench,
) -> None:
    delivery = bench.delivery(deliveries=4)
    before = History(failed=2, settled=3)
    bench.driver.attempts.histories["mail__send.EVENTS.1"] = before

    async def failed(event: UserCreated, context: Context, error: Exception) -> None:
        delivery.lost = True

    async def send(event: UserCreated) -> None:
        raise ValueError("the last attempt")

    ending = await bench.handle(send, delivery, failed=failed)

    assert isinstance(ending, Stuck)
    assert bench.letter().reason is Reason.EXCEPTION
    assert list(bench.driver.attempts.histories.values()) == [before]


async def test_an_event_that_ends_its_process_each_time_becomes_a_dead_letter(
    bench: Bench,
) -> None:
    ran: list[int] = []

    async def send(event: UserCreated) -> None:
        ran.append(1)

    crashed = History(failed=2, settled=3, started=4)
    bench.driver.attempts.histories["mail__send.EVENTS.1"] = crashed
    ending = await bench.handle(send, bench.delivery(deliveries=5))

    assert ran == []
    assert bench.driver.journal == [DLQ, "term: dead letter: crash"]
    assert isinstance(ending, Settled)
    assert (ending.outcome, ending.reason) == (Outcome.DEAD, Reason.CRASH)
    letter = bench.letter()
    assert (letter.reason, letter.attempts) == (Reason.CRASH, 3)
    assert letter.error_message == "no outcome after 3 attempts"


# What isn't handled ---------------------------------------------------------------------------


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


# When settling fails --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        NotConnectedError("away"),
        BackpressureError(stream="EVENTS_DLQ", problem="full"),
        EmitUnknown(name="a.b", id="1", after=15, tries=7),
        SubjectError(value="x", problem="can't be published to"),
    ],
    ids=lambda error: error.code,
)
async def test_without_its_dead_letter_the_original_stays(bench: Bench, error: Exception) -> None:
    bench.driver.raises = [error]

    ending = await bench.handle(raising(Reject("x")))

    assert bench.driver.journal == ["publish failed", f"nak {STAY_DELAY:g}"]
    assert ending == Stuck("user.created", "mail", "send", error)


async def test_a_letter_that_is_too_large_goes_without_its_stack(bench: Bench) -> None:
    bench.driver.raises = [PayloadTooLargeError(name="user.created", size=9, limit=8)]

    await bench.handle(raising(Reject("x")))

    assert bench.driver.journal == ["publish failed", DLQ, "term: dead letter: rejected"]
    letter = bench.letter()
    assert (letter.error_stack, letter.error_message) == ("", "x")


async def test_a_letter_that_is_still_too_large_goes_without_the_body(bench: Bench) -> None:
    bench.driver.raises = [PayloadTooLargeError(name="user.created", size=9, limit=8)] * 2

    await bench.handle(raising(Reject("x")))

    assert bench.driver.journal[-2:] == [DLQ, "term: dead letter: rejected"]
    letter = bench.driver.published[-1]
    assert letter.body == b""
    assert int(letter.headers["Eventbus-Dead-Body-Left-Out"]) > 0


async def test_a_letter_that_is_too_large_in_any_form_leaves_the_original(bench: Bench) -> None:
    bench.driver.raises = [PayloadTooLargeError(name="user.created", size=9, limit=8)] * 3

    ending = await bench.handle(raising(Reject("x")))

    assert bench.driver.journal == ["publish failed"] * 3 + [f"nak {STAY_DELAY:g}"]
    assert isinstance(ending, Stuck)


@pytest.mark.parametrize(
    ("listener", "how", "journal"),
    [
        (welcome, "ack", ["ack"]),
        (raising(Reject("x")), "term", [DLQ, "term: dead letter: rejected"]),
        (raising(ValueError("x")), "nak", ["nak 2"]),
    ],
    ids=["ack", "term", "nak"],
)
async def test_a_settlement_that_is_not_confirmed_is_told_and_not_raised(
    bench: Bench, listener: Callable[..., Awaitable[None]], how: str, journal: list[str]
) -> None:
    error = SettleError("no answer")

    ending = await bench.handle(listener, bench.delivery(fails={how: error}))

    assert bench.driver.journal == journal
    assert ending == Stuck("user.created", "mail", "send", error)


async def test_a_repeated_death_has_the_same_letter(bench: Bench) -> None:
    await bench.handle(raising(Reject("x")), bench.delivery(fails={"term": SettleError("x")}))
    await bench.handle(raising(Reject("x")), bench.delivery(deliveries=2))

    first, second = bench.driver.published
    assert first.id == second.id


# Cancellation ---------------------------------------------------------------------------------


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
        task.append(group.create_task(bench.dispatcher(listener)(bench.delivery(**changes))))
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
        await bench.dispatcher(raising(_Exit()))(bench.delivery())

    assert bench.driver.journal == []
    assert [type(one) for one in bench.told] == [Received, ListenerStarted]


# Middleware, telemetry, inheritance -----------------------------------------------------------


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
    await bench.dispatcher(send)(bench.delivery(sequence=7))

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
