"""What type checkers must refuse: each line that ends with ``# E:``, and no other.

``# E pyright:`` and ``# E mypy:`` mark what the other one can't see: mypy lets pydantic convert
the types of fields, pyright doesn't read ``model_config``.
"""

from functools import partial

from eventbus import (
    Batch,
    Context,
    Event,
    EventService,
    Listener,
    Query,
    Retry,
    in_loop,
    in_thread,
)


class UserCreated(Event, name="user.created", key="user_id"):
    user_id: str


class UserDeleted(Event, name="user.deleted"):
    user_id: str


events = EventService("mail")


async def of_created(event: UserCreated) -> None: ...


async def of_deleted(event: UserDeleted) -> None: ...


async def of_deleted_failing(event: UserDeleted, context: Context, error: Exception) -> None: ...


async def of_deleted_with_context(event: UserDeleted, context: Context) -> None: ...


async def of_three(event: UserCreated, context: Context, more: str) -> None: ...


async def without_event() -> None: ...


async def with_keyword(event: UserCreated, *, database: str) -> None: ...


async def in_batches(events: list[UserCreated]) -> None: ...


async def deleted_in_batches(events: list[UserDeleted]) -> None: ...


def about_deleted(event: UserDeleted) -> bool:
    return True


def sync(event: UserCreated) -> None: ...


# Listeners -------------------------------------------------------------------------------------


class OfCreated(Listener[UserCreated]):
    async def handle(self, event: UserCreated) -> None: ...


@events.subscribe(UserCreated)  # E: another event
async def wrong_event(event: UserDeleted) -> None: ...


@events.subscribe(UserCreated)  # E: not async
def not_async(event: UserCreated) -> None: ...


@events.subscribe("user.created")  # E: not async
def not_async_by_name(event: UserCreated) -> None: ...


events.subscribe(UserCreated)(of_deleted)  # E: another event
events.subscribe(UserCreated)(of_deleted_with_context)  # E: another event, with context
events.subscribe(UserCreated)(sync)  # E: not async
events.subscribe(UserCreated)(of_three)  # E: three parameters
events.subscribe(UserCreated)(without_event)  # E: no parameter
events.subscribe(UserCreated)(with_keyword)  # E: a keyword that nobody gives
events.subscribe(UserCreated)(partial(of_three, more=1))  # E: three parameters, one wrongly bound
events.subscribe(UserCreated, of_deleted)  # E: another event
events.subscribe(UserCreated, sync)  # E: not async
events.subscribe("user.created", sync)  # E: not async
events.subscribe(UserDeleted, OfCreated)  # E: a class for another event
events.subscribe(str)  # E: no event class
events.subscribe(UserCreated(user_id="u-1"))  # E: an event, not its class


events.subscribe(UserCreated, in_batches)  # E: takes lists, without batch=
events.subscribe(UserCreated, of_created, batch=Batch())  # E: takes no list
events.subscribe(UserCreated, deleted_in_batches, batch=Batch())  # E: lists of another event
events.subscribe(UserCreated, batch=Batch())(of_created)  # E: takes no list
events.subscribe(UserCreated, batch=5)  # E: no Batch


# Asking ----------------------------------------------------------------------------------------


class CountUsers(Query[int], name="user.count"):
    active: bool


@events.answer(CountUsers)  # E: another reply
async def count_as_text(query: CountUsers) -> str:
    return "1"


@events.answer(CountUsers)  # E: another question
async def count_created(query: UserCreated) -> int:
    return 1


@events.answer(CountUsers)  # E: not async
def count_at_once(query: CountUsers) -> int:
    return 1


async def asks() -> str:
    await events.request(UserCreated(user_id="u-1"))  # E: an event, not a query
    await events.request(CountUsers(active=True), timeout=None)  # E: wrong type
    return await events.request(CountUsers(active=True))  # E: another reply


events.answer(UserCreated)  # E: an event, not a query


# Options ---------------------------------------------------------------------------------------


events.subscribe(UserCreated, concurency=2)  # E: unknown option
events.subscribe(UserCreated, concurrency="many")  # E: wrong type
events.subscribe(UserCreated, retry=5)  # E: wrong type
events.subscribe(UserCreated, timeout=None)  # E: wrong type
events.subscribe("user.*", queue=5)  # E: wrong type
events.subscribe(UserCreated, mode="all")  # E: wrong value
events.subscribe(UserCreated, tries="many")  # E: wrong type
events.subscribe(UserCreated, of_created, when=of_created)  # E: async, and so always true
events.subscribe(UserCreated, of_created, when=about_deleted)  # E: asks of another event
events.subscribe(UserCreated, of_created, can_retry=about_deleted)  # E: takes no error
events.subscribe(UserCreated, of_created, middleware=[5])  # E: no middleware
events.subscribe(UserCreated, of_created, nmae="x")  # E: unknown option
events.subscribe(UserCreated, failed=of_created)  # E: takes no context and no error
events.subscribe(UserCreated, failed=of_deleted_failing)  # E: told of another event
Retry(atempts=3)  # E: unknown option
Retry(jitter="some")  # E: wrong value
Retry().on(ValueError, after=None)  # E: no delay
Retry().never("ValueError")  # E: no class


# Threads ---------------------------------------------------------------------------------------


def blocks(event: UserDeleted) -> None: ...


events.subscribe(UserCreated, in_thread(blocks))  # E: takes another event
events.subscribe(UserCreated)(in_thread(blocks))  # E: takes another event
in_thread(of_created)  # E: async already
in_thread(blocks, threads="many")  # E: wrong type
in_loop(5)  # E: no coroutine


# Emitting --------------------------------------------------------------------------------------


async def emits(context: Context) -> None:
    await events.emit(UserCreated(user_id=5))  # E pyright: wrong type of a field
    await events.emit(UserCreated(user_id="u-1", emial="x"))  # E: unknown field
    await events.emit(UserCreated())  # E: missing field
    await events.emit(UserCreated)  # E: the class, not an event
    await events.emit("user.created")  # E: a name without data
    await events.emit({"user_id": "u-1"})  # E: data without a name
    await events.emit(UserCreated(user_id="u-1"), {"user_id": "u-1"})  # E: an event and data
    await events.emit(UserCreated(user_id="u-1"), kye="x")  # E: unknown option
    await events.emit(UserCreated(user_id="u-1"), key=5)  # E: wrong type
    await events.emit("user.created", {"user_id": "u-1"}, headers={"a": 1})  # E: wrong type
    await context.emit("user.created")  # E: a name without data
    await context.emit(UserCreated(user_id="u-1"), kye="x")  # E: unknown option
    await events.emit_many([UserCreated])  # E: classes, not events


def frozen(event: UserCreated, context: Context) -> None:
    event.user_id = "other"  # E mypy: frozen
    context.attempt = 0  # E: frozen
