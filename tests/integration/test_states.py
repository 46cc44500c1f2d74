"""State events: the last of each key is kept, read and deleted, and listeners get them too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eventbus import Context, Event, EventService, Retry, StateDeleted, StateEvent
from eventbus.delivery import Outcome
from eventbus.drivers.base import Driver
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from eventbus.drivers.wrappers import Limited
from eventbus.embedded import NatsServer
from eventbus.errors import InvalidEventError, UnsupportedError
from eventbus.subject import Subjects
from eventbus.telemetry.signals import Happened, Settled
from eventbus.upcast import Payload, upcast
from tests.integration.rig import plain, settings_of

pytestmark = [pytest.mark.nats]


class ProfileV1(StateEvent, name="user.profile_changed", key="user_id"):
    user_id: str
    name: str


class Profile(StateEvent, name="user.profile_changed", version=2, key="user_id"):
    user_id: str
    first: str


@upcast("user.profile_changed", from_version=1)
def first_of(data: Payload) -> Payload:
    """Return the payload with the first name alone."""
    return {"user_id": data["user_id"], "first": str(data["name"]).split()[0]}


class Place:
    """Where a test runs: services of one bus."""

    def __init__(self, settings: Any, driver: type[Driver] | None) -> None:
        self.settings = settings
        self._broker = MemoryBroker() if driver is not None else None

    def service(self, name: str, **options: Any) -> EventService:
        driver = None if self._broker is None else MemoryDriver(self._broker)
        return EventService(name, settings=self.settings, driver=driver, **options)


@pytest.fixture(params=["real", "memory"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "memory":
        return Place(settings_of("nats://127.0.0.1:1"), MemoryDriver)
    server: NatsServer = request.getfixturevalue("nats_server")
    return Place(settings_of(server.url), None)


async def listed(events: EventService) -> list[tuple[str, str]]:
    return [(one.user_id, one.first) async for one in events.states(Profile)]


async def test_the_last_state_of_each_key_is_kept(place: Place) -> None:
    async with place.service("user") as events:
        events.registry.register(Profile)
        for first in ("Ada", "Augusta"):
            await events.emit(Profile(user_id="u-1", first=first))
        await events.emit("user.profile_changed", {"user_id": "ü 2", "first": "Grace"})

        assert await events.state(Profile, "u-1") == Profile(user_id="u-1", first="Augusta")
        assert await events.state(Profile, "ü 2") == Profile(user_id="ü 2", first="Grace")
        assert await events.state(Profile, "u-3") is None
        assert await listed(events) == [("u-1", "Augusta"), ("ü 2", "Grace")]


async def test_a_state_is_read_as_the_version_that_is_asked_for(place: Place) -> None:
    async with place.service("user") as events:
        await events.emit(ProfileV1(user_id="u-1", name="Ada Lovelace"))

        assert await events.state(Profile, "u-1") == Profile(user_id="u-1", first="Ada")
        assert await events.state(ProfileV1, "u-1") == ProfileV1(
            user_id="u-1", name="Ada Lovelace"
        )


async def test_a_deleted_state_is_gone_until_the_next_one(place: Place) -> None:
    async with place.service("user") as events:
        await events.emit(Profile(user_id="u-1", first="Ada"))
        await events.emit(Profile(user_id="u-2", first="Grace"))

        await events.delete_state(Profile, "u-1")
        gone = await events.state(Profile, "u-1"), await listed(events)
        await events.emit(Profile(user_id="u-1", first="Augusta"))

        assert gone == (None, [("u-2", "Grace")])
        assert await events.state(Profile, "u-1") == Profile(user_id="u-1", first="Augusta")


async def test_listeners_get_states_and_those_who_take_it_their_deletion(place: Place) -> None:
    got: asyncio.Queue[tuple[str, Event, str | None]] = asyncio.Queue()
    settled: asyncio.Queue[Settled] = asyncio.Queue()

    def observe(happened: Happened) -> None:
        if isinstance(happened, Settled) and happened.listener == "plain":
            settled.put_nowait(happened)

    events = place.service("mail", observers=[observe])

    @events.subscribe(Profile)
    async def plain(event: Profile, context: Context) -> None:
        got.put_nowait(("plain", event, context.key))

    @events.subscribe(Profile)
    async def mirror(event: Profile | StateDeleted, context: Context) -> None:
        got.put_nowait(("mirror", event, context.key))

    async with events, asyncio.timeout(30):
        await events.emit(Profile(user_id="u-1", first="Ada"))
        first = {(await got.get())[0], (await got.get())[0]}
        await events.delete_state(Profile, "u-1")
        last = await got.get()
        ends = [(await settled.get()).outcome for _ in range(2)]

    assert first == {"plain", "mirror"}
    assert last == ("mirror", StateDeleted(name="user.profile_changed", key="u-1"), "u-1")
    assert ends == [Outcome.OK, Outcome.DROPPED]
    assert got.empty()


async def test_a_listener_that_emits_states_again_stores_them_once(place: Place) -> None:
    """A redelivered listener's second emit is a duplicate, and must not put an old state back."""
    done = asyncio.Event()
    events = place.service("mail")

    class UserRenamed(Event, name="user.renamed"):
        first: str

    @events.subscribe(UserRenamed, retry=Retry(attempts=2, start=0.01, jitter="none"))
    async def rename(event: UserRenamed, context: Context) -> None:
        await context.emit(Profile(user_id="u-1", first=event.first))
        if context.attempt == 1:
            async with place.service("other") as other:
                await other.emit(Profile(user_id="u-1", first="later"))
            raise RuntimeError
        done.set()

    async with events, asyncio.timeout(30):
        await events.emit(UserRenamed(first="earlier"))
        await done.wait()

        assert await events.state(Profile, "u-1") == Profile(user_id="u-1", first="later")


async def test_a_state_without_a_key_is_refused(place: Place) -> None:
    class Maybe(StateEvent, name="maybe.changed", key="id"):
        id: str | None

    async with place.service("user") as events:
        with pytest.raises(InvalidEventError, match="kept by its key"):
            await events.emit(Maybe(id=None))


async def test_a_state_can_not_be_delayed(place: Place) -> None:
    async with place.service("user") as events:
        with pytest.raises(InvalidEventError, match="true now"):
            await events.emit(Profile(user_id="u-1", first="Ada"), delay=5)


async def test_a_wrapped_driver_keeps_states_too() -> None:
    settings = settings_of("nats://127.0.0.1:1")
    driver = Limited(MemoryDriver(MemoryBroker()), 2)
    async with EventService("user", settings=settings, driver=driver) as events:
        await events.emit(Profile(user_id="u-1", first="Ada"))

        assert await events.state(Profile, "u-1") == Profile(user_id="u-1", first="Ada")
        assert await listed(events) == [("u-1", "Ada")]


async def test_a_driver_that_keeps_nothing_refuses_states() -> None:
    settings = settings_of("nats://127.0.0.1:1", driver="sync")
    async with EventService("user", settings=settings) as events:
        with pytest.raises(UnsupportedError, match="keeping the last"):
            await events.emit(Profile(user_id="u-1", first="Ada"))
        with pytest.raises(UnsupportedError, match="keeping states"):
            await events.state(Profile, "u-1")


@asynccontextmanager
async def started(server: NatsServer, name: str) -> AsyncIterator[EventService]:
    async with EventService(name, settings=settings_of(server.url)) as events:
        yield events


async def test_writers_at_the_same_time_agree_with_the_stream_on_which_state_is_the_last(
    nats_server: NatsServer,
) -> None:
    subjects = Subjects()
    async with started(nats_server, "one") as one, started(nats_server, "two") as two:
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                events = one if number % 2 else two
                group.create_task(events.emit(Profile(user_id="u-1", first=str(number))))
        kept = await one.state(Profile, "u-1")
        async with JetStreamDriver(one.settings, service="look") as driver:
            stored = [
                each.message.body
                async for each in driver.admin.messages(
                    subjects.stream, subjects.event("user.profile_changed")
                )
            ]

    assert len(stored) == 30
    assert kept is not None
    assert kept.event_body() == stored[-1]


async def test_a_state_is_replaced_after_the_stream_of_events_was_made_anew(
    nats_server: NatsServer,
) -> None:
    async with started(nats_server, "user") as events:
        for number in range(5):
            await events.emit(Profile(user_id="u-1", first=str(number)))
    async with plain(nats_server.url) as client:
        await client.jetstream().delete_stream("EVENTS")
    async with started(nats_server, "user") as events:
        await events.emit(Profile(user_id="u-1", first="anew"))

        assert await events.state(Profile, "u-1") == Profile(user_id="u-1", first="anew")
