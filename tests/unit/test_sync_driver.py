"""The sync driver: the listeners of this process run within the emit."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable

import pytest

from eventbus import (
    Context,
    Data,
    Discard,
    Event,
    EventService,
    Receipt,
    Retry,
    Settings,
    UnknownEvent,
)
from eventbus.delivery import Delivery, Outcome
from eventbus.drivers.base import ConsumerSpec, Driver
from eventbus.drivers.choice import driver_of
from eventbus.drivers.sync import SyncDriver, SyncHub
from eventbus.envelope import Message
from eventbus.errors import (
    DeclarationError,
    InvalidEventError,
    ListenerTimeoutError,
    PublishError,
    UnsupportedError,
    UpcastError,
)
from eventbus.middleware.base import CallNext
from eventbus.telemetry.signals import EmitFailed, Emitted, Observer, Returned, Settled
from tests.unit.conftest import RecordingDriver

SETTINGS = Settings()


class UserCreated(Event, name="user.created", version=2, key="user_id", tags=("signup",)):
    user_id: str


class OldUserCreated(Event, name="user.created", version=1):
    user_id: str


class MailSent(Event, name="mail.sent"):
    to: str


class AuditNoted(Event, name="audit.noted", driver="sync"):
    what: str


class BasketFilled(Event, name="basket.filled"):
    items: list[str]


class Address(Data):
    city: str


class UserMoved(Event, name="user.moved"):
    to: Address
    past: tuple[Address, ...] = ()


async def ack(delivery: Delivery) -> None:
    await delivery.ack()


async def nak(delivery: Delivery) -> None:
    await delivery.nak(3)


async def term(delivery: Delivery) -> None:
    await delivery.term("dead letter: rejected")


def service(
    name: str = "app", driver: Driver | None = None, observers: Iterable[Observer] = ()
) -> EventService:
    driver = driver or SyncDriver()
    return EventService(name, settings=SETTINGS, driver=driver, observers=observers)


async def test_listeners_have_run_when_emit_returns() -> None:
    seen: list[str] = []
    events = service()

    @events.subscribe("user.*")
    async def note(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(type(event).__name__)

    @events.subscribe(UserCreated)
    async def welcome(event: UserCreated, context: Context) -> None:
        seen.append(f"{context.name} {context.key} {context.tags} {context.attempt}")

    async with events:
        receipt = await events.emit("user.created", {"user_id": "u-1"})

    assert seen == ["UserCreated", "user.created u-1 ('signup',) 1"]
    assert receipt == Receipt(receipt.id, "", 0, driver="sync")


async def test_what_a_listener_raises_is_raised_by_the_emit() -> None:
    error = LookupError("no such template")
    gave_up: list[Exception] = []
    ran: list[str] = []
    events = service()

    async def failed(event: UserCreated, context: Context, error: Exception) -> None:
        gave_up.append(error)

    @events.subscribe(UserCreated, failed=failed)
    async def welcome(event: UserCreated) -> None:
        raise error

    @events.subscribe(UserCreated)
    async def count(event: UserCreated) -> None:
        ran.append(event.user_id)

    async with events:
        with pytest.raises(LookupError) as raised:
            await events.emit(UserCreated(user_id="u-1"))

    assert raised.value is error
    assert gave_up == [error]
    assert ran == ["u-1"]


async def test_several_errors_come_as_a_group() -> None:
    events = service()

    @events.subscribe(UserCreated)
    async def one(event: UserCreated) -> None:
        raise LookupError

    @events.subscribe(UserCreated)
    async def two(event: UserCreated) -> None:
        raise KeyError

    async with events:
        with pytest.raises(
            ExceptionGroup, match=r"2 listeners of 'user.created' failed"
        ) as raised:
            await events.emit(UserCreated(user_id="u-1"))

    assert [type(one) for one in raised.value.exceptions] == [LookupError, KeyError]


async def test_middleware_quick_tries_and_the_time_limit_hold_here_too() -> None:
    order: list[str] = []
    events = service()

    async def around(context: Context, call_next: CallNext) -> None:
        order.append(f"before {context.listener}")
        await call_next(context)
        order.append("after")

    events.use(middleware=[around])

    @events.subscribe(UserCreated, retry=Retry(quick=2, jitter="none"))
    async def shaky(event: UserCreated) -> None:
        order.append("shaky")
        if order.count("shaky") < 2:
            raise LookupError

    @events.subscribe(MailSent, timeout=0.01)
    async def hang(event: MailSent) -> None:
        await asyncio.Event().wait()

    async with events:
        await events.emit(UserCreated(user_id="u-1"))
        with pytest.raises(ListenerTimeoutError):
            await events.emit(MailSent(to="ada"))

    assert order == ["before shaky", "shaky", "shaky", "after", "before hang"]


async def test_what_a_listener_emits_inherits_the_correlation_and_has_it_as_its_cause() -> None:
    seen: dict[str, Context] = {}
    events = service()

    @events.subscribe(UserCreated)
    async def welcome(event: UserCreated, context: Context) -> None:
        seen["user"] = context
        await events.emit(MailSent(to=event.user_id))

    @events.subscribe(MailSent)
    async def note(event: MailSent, context: Context) -> None:
        seen["mail"] = context

    async with events:
        await events.emit(UserCreated(user_id="u-1"), correlation_id="story-1")

    assert seen["mail"].correlation_id == "story-1"
    assert seen["mail"].causation_id == seen["user"].id


async def test_observers_are_told_of_listeners_and_of_emits() -> None:
    told: list[object] = []
    events = service(observers=[told.append])

    @events.subscribe(UserCreated)
    async def fine(event: UserCreated) -> None: ...

    @events.subscribe(UserCreated)
    async def discards(event: UserCreated) -> None:
        raise Discard("of no use")

    @events.subscribe(MailSent)
    async def fails(event: MailSent) -> None:
        raise LookupError

    async with events:
        await events.emit(UserCreated(user_id="u-1"))
        with pytest.raises(LookupError):
            await events.emit(MailSent(to="ada"))

    outcomes = [one.outcome for one in told if isinstance(one, Settled)]
    assert outcomes == [Outcome.OK, Outcome.DROPPED, Outcome.RAISED]
    emits = [type(one) for one in told if isinstance(one, (Emitted, EmitFailed))]
    assert emits == [Emitted, EmitFailed]


async def test_a_cancelled_emit_cancels_the_listener_that_runs() -> None:
    told: list[object] = []
    ended: list[str] = []
    running = asyncio.Event()
    events = service(observers=[told.append])

    @events.subscribe(UserCreated)
    async def hang(event: UserCreated) -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with events, asyncio.TaskGroup() as group:
        emitting = group.create_task(events.emit(UserCreated(user_id="u-1")))
        await running.wait()
        emitting.cancel()

    assert ended == ["cancelled"]
    assert [one.listener for one in told if isinstance(one, Returned)] == ["hang"]


async def test_a_listener_cannot_change_what_the_emitter_or_another_one_holds() -> None:
    seen: list[list[str]] = []
    events = service()

    @events.subscribe(BasketFilled)
    async def takes_out(event: BasketFilled) -> None:
        event.items.clear()

    @events.subscribe(BasketFilled)
    async def counts(event: BasketFilled) -> None:
        seen.append(event.items)

    basket = BasketFilled(items=["tea"])
    async with events:
        await events.emit(basket)

    assert seen == [["tea"]]
    assert basket.items == ["tea"]


async def test_what_cannot_be_changed_is_not_read_anew() -> None:
    seen: list[Event] = []
    events = service()

    @events.subscribe(UserMoved)
    async def note(event: UserMoved) -> None:
        seen.append(event)

    moved = UserMoved(to=Address(city="London"), past=(Address(city="Paris"),))
    async with events:
        await events.emit(moved)

    assert seen[0] is moved


async def test_a_listener_of_another_version_reads_it_as_that_one() -> None:
    seen: list[Event] = []
    events = service()
    events.registry.register(UserCreated)

    @events.subscribe(OldUserCreated)
    async def welcome(event: OldUserCreated) -> None:
        seen.append(event)

    async with events:
        await events.emit(UserCreated(user_id="u-1"))

    assert seen == [OldUserCreated(user_id="u-1")]


async def test_an_event_that_a_listener_cannot_take_is_refused_as_it_is_on_the_wire() -> None:
    events = service()

    @events.subscribe(UserCreated)
    async def welcome(event: UserCreated) -> None: ...

    async with events:
        events.registry.register(OldUserCreated)
        with pytest.raises(UpcastError, match="takes UserCreated"):
            await events.emit(OldUserCreated(user_id="u-1"))


async def test_an_emit_and_an_event_name_their_driver() -> None:
    heard: list[str] = []
    broker = RecordingDriver()
    events = service(driver=broker)

    @events.subscribe(AuditNoted)
    async def note(event: AuditNoted) -> None:
        heard.append("audit.noted")

    async with events:
        await events.emit(AuditNoted(what="login"))
        await events.emit(MailSent(to="ada"))
        await events.emit(AuditNoted(what="login"), driver="queue")
        await events.emit(AuditNoted(what="login"), driver="recording")
        with pytest.raises(DeclarationError, match=r"no driver 'snyc'.*did you mean 'sync'"):
            await events.emit(MailSent(to="ada"), driver="snyc")

    assert heard == ["audit.noted"]
    assert [one.subject for one in broker.published] == [
        "events.mail.sent",
        "events.audit.noted",
        "events.audit.noted",
    ]


async def test_services_that_share_a_hub_hear_each_other_until_they_stop() -> None:
    heard: list[str] = []
    hub = SyncHub()
    users, mails = (
        service("users", driver=SyncDriver(hub)),
        service("mails", driver=SyncDriver(hub)),
    )

    @mails.subscribe(UserCreated)
    async def welcome(event: UserCreated, context: Context) -> None:
        heard.append(f"{context.service} hears {context.source}")

    async with users:
        async with mails:
            await users.emit(UserCreated(user_id="u-1"))
        await users.emit(UserCreated(user_id="u-2"))

    assert heard == ["mails hears users"]


async def test_services_whose_environment_says_sync_share_what_they_emit() -> None:
    heard: list[str] = []
    settings = Settings(driver="sync")
    users = EventService("users", settings=settings)
    mails = EventService("mails", settings=settings)

    @mails.subscribe(UserCreated)
    async def welcome(event: UserCreated) -> None:
        heard.append(event.user_id)

    async with users, mails:
        await users.emit(UserCreated(user_id="u-1"))

    assert heard == ["u-1"]
    assert driver_of(settings, "users").name == "sync"


async def test_a_listener_that_joins_later_is_heard_from_then_on() -> None:
    heard: list[str] = []
    events = service()

    async def welcome(event: UserCreated) -> None:
        heard.append(event.user_id)

    async with events:
        await events.emit(UserCreated(user_id="u-1"))
        await events.subscribe(UserCreated, welcome)
        await events.emit(UserCreated(user_id="u-2"))

    assert heard == ["u-2"]


async def test_it_refuses_order_by_key_when_it_starts() -> None:
    events = service()

    @events.subscribe(UserCreated, ordered=True)
    async def follow(event: UserCreated) -> None: ...

    with pytest.raises(UnsupportedError, match="listener 'follow'"):
        await events.start()


@pytest.mark.parametrize(
    ("settle", "problem"),
    [
        (ack, None),
        (nak, "delivers nothing again"),
        (term, "dead letter: rejected"),
    ],
)
async def test_a_publish_waits_for_its_deliveries_and_fails_as_they_do(
    settle: Callable[[Delivery], Coroutine[object, object, None]], problem: str | None
) -> None:
    driver = SyncDriver()
    spec = ConsumerSpec("app__one", "app", "one", ("user.*",), slots=1)
    message = Message("events.user.created", {"ce-id": "1"}, b"{}", "1")
    tasks: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:

        def deliver(delivery: Delivery) -> None:
            tasks.add(group.create_task(settle(delivery)))

        consumer = await driver.consume(spec, deliver)
        if problem is None:
            assert (await driver.publish(message)).id == "1"
        else:
            with pytest.raises(PublishError, match=problem):
                await driver.publish(message)
        await consumer.stop()

    assert len(tasks) == 1


async def test_a_bad_event_never_reaches_a_listener() -> None:
    events = service()

    @events.subscribe("user.created")
    async def note(event: UserCreated) -> None: ...

    async with events:
        with pytest.raises(InvalidEventError):
            await events.emit("user.created", {"user": "u-1"})


async def test_a_pattern_listener_gets_the_class_that_was_emitted() -> None:
    seen: list[type[Event]] = []
    events = service()

    @events.subscribe("mail.*")
    async def note(event: UnknownEvent) -> None:
        seen.append(type(event))

    async with events:
        await events.emit(MailSent(to="ada"))

    assert seen == [MailSent]
