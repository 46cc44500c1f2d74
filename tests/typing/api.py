"""What users write and both type checkers must accept; checked, never run."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import assert_type

from eventbus import (
    Batch,
    BatchContext,
    Breaker,
    Context,
    Data,
    Discard,
    EmitMiddleware,
    EmitUnknown,
    Envelope,
    Event,
    EventService,
    Middleware,
    Query,
    Receipt,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Settings,
    Subscription,
    UnknownEvent,
    in_loop,
    in_thread,
)
from eventbus.drivers.receipt import Scheduled
from eventbus.middleware.base import CallEmit, CallNext
from eventbus.middleware.overlap import WithoutOverlapping
from eventbus.middleware.throttle import Throttle
from eventbus.telemetry.signals import Happened, Settled


class Address(Data):
    city: str


class UserCreated(Event, name="user.created", version=2, key="user_id", tags=("crm",)):
    user_id: str
    address: Address | None = None


class UserDeleted(Event, name="user.deleted", driver="jetstream", priority="low"):
    user_id: str


class UserEvent(Event, str_strip_whitespace=True):
    user_id: str


class UserBanned(UserEvent, name="user.banned"):
    reason: str = ""


# Services --------------------------------------------------------------------------------------


class Timing:
    """A middleware as an object."""

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        await call_next(replace(context, tags=(*context.tags, "timed")))


async def tagging(envelope: Envelope, call_next: CallEmit) -> Receipt:
    return await call_next(replace(envelope, tags=("tagged",)))


def watching(happened: Happened) -> None:
    if isinstance(happened, Settled):
        assert_type(happened.attempt, int)


timing: Middleware = Timing()
emitting: EmitMiddleware = tagging
events = EventService(
    "mail",
    settings=Settings(namespace="shop"),
    middleware=[timing],
    emit_middleware=[emitting],
    observers=[watching],
)


# Emitting --------------------------------------------------------------------------------------


async def emits() -> None:
    event = UserCreated(user_id="u-1", address=Address(city="Ulm"))
    receipt = await events.emit(event)
    assert_type(receipt, Receipt)
    assert_type(await events.emit("user.created", {"user_id": "u-1"}), Receipt)
    await events.emit(event, id="i", key="k", headers={"x-tenant": "a"}, correlation_id="c")
    await events.emit("user.created", {"user_id": "u-1"}, key="k")
    assert_type(await events.emit_many([event, UserDeleted(user_id="u-1")]), list[Receipt])
    later = await events.emit(event, delay="5m", expires=timedelta(hours=1))
    await events.emit(event, at=datetime(2030, 1, 1, tzinfo=UTC))
    assert_type(await events.cancel(later.scheduled), bool)
    assert_type(await events.reschedule("i", delay=30), Scheduled | None)
    try:
        await events.emit(event)
    except EmitUnknown as exc:
        assert_type(exc.id, str)


@events.cron("0 9 * * 1-5", timezone="Europe/Paris")
def banned(at: datetime) -> UserBanned:
    return UserBanned(user_id=str(at))


assert_type(banned(datetime(2030, 1, 1, tzinfo=UTC)), UserBanned)
events.every("5m", name="sweep")(lambda: UserDeleted(user_id="u-1"))


# Listening -------------------------------------------------------------------------------------


@events.subscribe(UserCreated)
async def by_class(event: UserCreated) -> None:
    assert_type(event.address, Address | None)


@events.subscribe(UserCreated)
async def with_context(event: UserCreated, context: Context) -> None:
    assert_type(context.attempt, int)
    await context.emit(UserDeleted(user_id=event.user_id), key=context.key or "")
    await context.emit("user.deleted", {"user_id": event.user_id})


@events.subscribe(
    UserCreated,
    name="slow-one",
    retry=Retry(attempts=8, start="1s", cap=timedelta(minutes=5)).never(KeyError),
    concurrency=64,
    timeout="2m",
    queue="emails",
    start="all",
    middleware=(timing,),
    ack_wait=10,
)
async def with_options(event: UserCreated) -> None:
    if event.user_id == "test":
        raise Discard("a test account")
    if not event.user_id:
        raise Reject("no user")
    raise RetryLater("5m")


def wanted(event: UserCreated) -> bool:
    return event.address is not None


def until(event: Event) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@events.subscribe(
    UserCreated,
    tries=5,
    backoff=[5, "15s", timedelta(seconds=30)],
    max_exceptions=3,
    can_retry=lambda event, error: event.user_id != "" and not isinstance(error, KeyError),
    retry_until=until,
    delay="10m",
    when=wanted,
    middleware=[Throttle("10/1s"), WithoutOverlapping(by="user_id"), "throttle:10,1", Breaker()],
)
async def with_more_options(event: UserCreated) -> None: ...


@events.subscribe(UserCreated, atomic=True, name="atomic")
async def only_emits(event: UserCreated, context: Context) -> None:
    await context.emit(event)


@events.subscribe(UserCreated, batch=Batch(max=100, max_wait=0.5), name="batched")
async def in_batches(events: list[UserCreated]) -> None:
    assert_type(events[0].address, Address | None)


@events.subscribe(UserCreated, batch=Batch(), tries=3)
async def with_batch_context(
    events: list[UserCreated], context: BatchContext[UserCreated]
) -> None:
    for event in events:
        context.fail(event, ValueError(event.user_id))
        await context.context(event).emit(UserDeleted(user_id=event.user_id))
    context.fail(0, Reject("never"))


@events.subscribe("user.*", batch=Batch())
async def batches_by_pattern(events: list[Event]) -> None: ...


events.subscribe(UserCreated, in_batches, batch=Batch(max=5), name="again_in_batches")
events.subscribe(UserCreated, with_context, name="each", mode="fanout")


class UserView(Data):
    user_id: str


class GetUser(Query[UserView], name="user.get"):
    user_id: str


@events.answer(GetUser, concurrency=4, timeout="5s")
async def get_user(query: GetUser) -> UserView:
    return UserView(user_id=query.user_id)


async def requests() -> None:
    assert_type(await events.request(GetUser(user_id="u-1"), timeout=2), UserView)
    assert_type(await get_user(GetUser(user_id="u-1")), UserView)


async def priced(event: UserCreated) -> int:
    return 1


@events.subscribe(UserCreated, name="answering")
async def answering(event: UserCreated) -> str:
    return event.user_id


events.subscribe(UserCreated, priced)
events.listen({"user.created": [priced, "services.mail:greet"], "user.*": (priced, {"tries": 3})})


async def asks() -> None:
    assert_type(await events.until(UserCreated(user_id="u-1")), object)
    assert_type(await answering(UserCreated(user_id="u-1")), str)
    assert_type(events.has_listeners(UserCreated), bool)
    assert_type(events.listeners("user.*"), tuple[Subscription, ...])
    events.push(UserCreated(user_id="u-1"), key="k")
    assert_type(await events.flush(UserCreated), list[Receipt])


async def comes_and_goes() -> None:
    one = await events.subscribe(UserCreated, with_context, mode="ephemeral", name="passing")
    await events.unsubscribe(one)
    await events.unsubscribe("each", delete=True, grace=1)
    assert_type(await events.replay(with_context, datetime(2026, 1, 1, tzinfo=UTC)), int)


events.subscribe(UserCreated, with_context, name="fluent").via_queue("emails").with_delay("10m")


@events.subscribe("user.*")
async def by_pattern(event: UserCreated | UserDeleted) -> None:
    assert_type(event.user_id, str)


@events.subscribe("user.>", start=datetime(2026, 1, 1, tzinfo=UTC))
async def by_pattern_of_any(event: Event, context: Context) -> None:
    if isinstance(event, UnknownEvent):
        assert_type(event.version, int)


@events.subscribe("user.deleted", start=7)
async def by_name(event: UserDeleted) -> None: ...


@events.subscribe(UserBanned)
async def of_a_base_class(event: UserEvent) -> None: ...


class Mailer:
    """A listener that is a method."""

    async def send(self, event: UserCreated, context: Context) -> None: ...


async def bound(event: UserCreated, *, database: str) -> None: ...


async def calls() -> None:
    one = await events.subscribe(UserCreated, by_class)
    assert_type(one, Subscription)
    await events.subscribe(UserCreated, with_context, name="again", concurrency=2)
    await events.subscribe(UserCreated, Mailer().send)
    await events.subscribe(UserCreated, partial(bound, database="x"), name="bound")
    await events.subscribe("user.*", by_pattern_of_any, queue="audit")
    events.subscribe(UserCreated)(by_class)


# A decorated listener can still be called, in a test for instance.
async def called(context: Context) -> None:
    await by_class(UserCreated(user_id="u-1"))
    await with_context(UserCreated(user_id="u-1"), context)
    await by_pattern(UserDeleted(user_id="u-1"))
    assert_type(by_name, Callable[[UserDeleted], Awaitable[None]])  # type: ignore[assert-type]


# When it fails for the last time, and in a thread ------------------------------------------------


async def gave_up(event: UserCreated, context: Context, error: Exception) -> None: ...


async def any_gave_up(event: Event, context: Context, error: Exception) -> None: ...


@events.subscribe(UserCreated, name="hooked", failed=gave_up)
async def hooked(event: UserCreated) -> None: ...


@events.subscribe("user.created", name="hooked_by_name", failed=gave_up)
async def hooked_by_name(event: UserCreated) -> None: ...


events.subscribe(UserCreated, hooked, name="hooked_too", failed=any_gave_up)
events.subscribe("user.*", hooked, name="hooked_by_pattern", failed=any_gave_up)


@events.subscribe(UserCreated)
@in_thread
def blocking(event: UserCreated, context: Context) -> None:
    assert_type(in_loop(context.emit(event)), Receipt)


events.subscribe(UserCreated, in_thread(lambda event: None, threads=4), name="brief")


# Running ---------------------------------------------------------------------------------------


@events.background
async def poll() -> None: ...


async def runs() -> None:
    async with events as started:
        assert_type(started, EventService)
        assert_type(events.status().ready, bool)
        assert_type(events.in_flight(), dict[str, int])
    await events.start()
    await events.stop(grace=5)
    await events.run()


def declared() -> None:
    registry = Registry()

    @registry.register
    class Local(Event, name="thing.made"):
        x: int

    assert_type(registry.resolve("thing.made"), type[Event])
    assert_type(Local(x=1).event_key(), str | None)


def limited(error: ConnectionError) -> float:
    return 5 if isinstance(error, ConnectionResetError) else 60


retry = Retry(delays=(1, "5s", timedelta(minutes=1))).on(ConnectionError, after=limited)
retry = retry.on(OSError, after="1m").never(ValueError, TypeError)
