"""`events.track()`: waiting for all that was caused, and telling it as a tree."""

import asyncio

import pytest

from eventbus import Context, Event, EventService, Retry, Settings
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer

pytestmark = pytest.mark.nats


class UserCreated(Event, name="user.created"):
    user_id: str


class EmailSent(Event, name="email.sent"):
    to: str


class UserGreeted(Event, name="user.greeted"):
    user_id: str


@pytest.fixture
def settings(nats_server: NatsServer) -> Settings:
    return Settings(nats_url=nats_server.url)


@pytest.fixture
def mailer(settings: Settings) -> EventService:
    events = EventService("mailer", settings=settings)

    @events.subscribe(UserCreated, retry=Retry(attempts=3, start=0.01))
    async def welcome(event: UserCreated, context: Context) -> None:
        if event.user_id == "bad":
            raise RuntimeError("never")
        if context.attempt == 1:
            raise RuntimeError("not yet")
        await context.emit(EmailSent(to=event.user_id))
        await context.emit(UserGreeted(user_id=event.user_id))

    return events


async def test_a_track_waits_for_everything_caused_and_tells_the_tree(
    settings: Settings, mailer: EventService
) -> None:
    web = EventService("web", settings=settings)

    async with web, mailer, web.track(mailer) as track:
        await web.emit(UserCreated(user_id="ada"))

    track.assert_tree("user.created > (user.greeted, email.sent)")
    assert track.tree() == "  user.created\n    email.sent\n    user.greeted"
    assert [one.outcome for one in track.settled] == [Outcome.RETRY, Outcome.OK]


async def test_a_dead_letter_is_an_end_too(settings: Settings, mailer: EventService) -> None:
    web = EventService("web", settings=settings)

    async with web, mailer, web.track(mailer) as track:
        await web.emit(UserCreated(user_id="bad"))
        await web.emit(EmailSent(to="nobody"))

    track.assert_tree("user.created, email.sent")
    assert track.settled[-1].outcome is Outcome.DEAD


async def test_another_tree_than_expected_is_shown_beside_it(
    settings: Settings, mailer: EventService
) -> None:
    async with mailer, mailer.track() as track:
        await mailer.emit(UserCreated(user_id="ada"))

    with pytest.raises(AssertionError) as failed:
        track.assert_tree("user.created > email.sent")

    assert str(failed.value) == (
        "expected\n  user.created\n    email.sent\n"
        "but emitted was\n  user.created\n    email.sent\n    user.greeted"
    )


async def test_what_isnt_done_in_time_is_named(settings: Settings) -> None:
    events, release = EventService("slow", settings=settings), asyncio.Event()

    @events.subscribe(UserCreated)
    async def ponder(event: UserCreated) -> None:
        await release.wait()

    async with events:
        with pytest.raises(AssertionError) as failed:
            async with events.track(timeout="100ms"):
                await events.emit(UserCreated(user_id="ada"))
        release.set()

    assert str(failed.value) == (
        "not done after 0.1 s:\n  user.created by slow__ponder\nemitted was\n  user.created"
    )


async def test_a_block_that_raises_waits_for_nothing_and_its_error_is_kept(
    settings: Settings,
) -> None:
    events = EventService("slow", settings=settings)

    @events.subscribe(UserCreated)
    async def ponder(event: UserCreated) -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        async with events.track(timeout="1h"):
            await events.emit(UserCreated(user_id="ada"))
            raise ZeroDivisionError

    await events.start()
    with pytest.raises(ZeroDivisionError):
        await fail()
    await events.stop(grace=0.1)


@pytest.mark.parametrize("text", ["a >", "a > (b", "a b", ", a", "a > (b, )", ")"])
async def test_a_tree_that_cant_be_read_is_an_error_of_its_own(text: str) -> None:
    track = EventService("web").track()

    with pytest.raises(ValueError, match="can't read the tree"):
        track.assert_tree(text)
