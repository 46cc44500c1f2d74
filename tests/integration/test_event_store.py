"""The event store: every event in a table, once, and found again."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from eventbus import Event, EventService
from eventbus.embedded import NatsServer
from eventbus.errors import SubjectError
from eventbus.ops import stores
from eventbus.settings import Settings
from eventbus.stores.history import StoredEvent
from tests.integration.ledger import Paid, database, until
from tests.integration.rig import plain, settings_of

pytestmark = pytest.mark.nats


class PaidSince(Event, name="payment.paid", version=2, key="account"):
    """A version that the recording process doesn't know."""

    account: str
    number: int
    channel: str


class UserCreated(Event, name="user.created", key="user_id"):
    user_id: str


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    async with database(database_url) as engine:
        yield engine


@pytest.fixture
def settings(nats_server: NatsServer, database_url: str) -> Settings:
    return settings_of(
        nats_server.url, store_url=database_url, store_enabled=True, provision="auto"
    )


async def found(events: EventService, **asked: object) -> list[StoredEvent]:
    return [one async for one in events.store.query(**asked)]  # type: ignore[arg-type]


async def recorded(events: EventService, count: int) -> list[StoredEvent]:
    async def reached() -> bool:
        return len(await found(events)) >= count

    await until(reached, f"{count} events recorded")
    return await found(events)


async def test_each_event_is_recorded_once_with_all_that_travelled_with_it(
    settings: Settings, engine: AsyncEngine
) -> None:
    one, two = EventService("one", settings=settings), EventService("two", settings=settings)

    async with one, two:
        first = await one.emit(
            Paid(account="a", number=1), correlation_id="c-1", headers={"tenant": "t"}
        )
        await two.emit(PaidSince(account="b", number=2, channel="web"))
        rows = await recorded(one, 2)

    assert [(row.name, row.version, row.source) for row in rows] == [
        ("payment.paid", 1, "one"),
        ("payment.paid", 2, "two"),
    ]
    assert (rows[0].id, rows[0].key, rows[0].correlation_id) == (first.id, "a", "c-1")
    assert (rows[0].headers, rows[0].stream_sequence) == ({"tenant": "t"}, first.sequence)
    assert rows[1].data == {"account": "b", "number": 2, "channel": "web"}


async def test_it_is_queried_by_name_key_correlation_and_time(
    settings: Settings, engine: AsyncEngine
) -> None:
    events = EventService("one", settings=settings)

    async with events:
        for number, account in enumerate("aab"):
            await events.emit(Paid(account=account, number=number), correlation_id=f"c-{number}")
        await events.emit(UserCreated(user_id="a"))
        rows = await recorded(events, 4)

        assert await found(events, name="payment.paid") == rows[:3]
        assert await found(events, name="user.*") == await found(events, name="user.>") == rows[3:]
        assert await found(events, key="a") == [*rows[:2], rows[3]]
        assert await found(events, correlation_id="c-2") == [rows[2]]
        assert await found(events, since=rows[2].time) == rows[2:]
        assert await found(events, until=rows[2].time, name="payment.*") == rows[:2]
        assert await found(events, since=rows[3].time + timedelta(seconds=1)) == []
        assert await found(events, limit=2) == rows[:2]
        with pytest.raises(SubjectError):
            await found(events, name="Payment Paid")


async def test_it_is_rebuilt_from_what_the_stream_still_holds(
    settings: Settings, engine: AsyncEngine, nats_server: NatsServer
) -> None:
    quiet = settings.override(store_enabled=False)
    async with EventService("one", settings=quiet) as events:
        for number in range(3):
            await events.emit(Paid(account="a", number=number))
    async with plain(nats_server.url) as client:
        await client.jetstream().publish("events.not.ours", b"what is this")

    first, again = await stores.rebuild(settings), await stores.rebuild(settings)

    assert (first, again) == ((3, 3), (3, 0))


async def test_what_was_emitted_before_anybody_recorded_is_recorded_too(
    settings: Settings, engine: AsyncEngine
) -> None:
    async with EventService("one", settings=settings.override(store_enabled=False)) as events:
        await events.emit(Paid(account="a", number=1))

    async with EventService("two", settings=settings) as events:
        [row] = await recorded(events, 1)

    assert row.data == {"account": "a", "number": 1, "filler": ""}
