"""Batches on a real server: answers that get lost, permissions, and streams that take none."""

import asyncio
import json
from collections.abc import Callable

import pytest

from eventbus import Context, Event, EventService
from eventbus.delivery import Outcome
from eventbus.drivers.atomic import Mark
from eventbus.drivers.jetstream import batch
from eventbus.embedded import NatsServer
from eventbus.envelope import Message
from eventbus.errors import (
    DriverError,
    NoStreamError,
    NotAuthorizedError,
    PublishError,
    SequenceConflictError,
)
from eventbus.telemetry.signals import Settled
from tests.integration.rig import Line, driver_of, event, plain, settings_of
from tests.waiting import eventually

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

PLACE = "events-inbox.mailer.send.id-0"


async def stored(server: NatsServer) -> list[str]:
    """Return the subjects in the stream, in order."""
    async with driver_of(server.url) as driver:
        return [one.message.subject async for one in driver.admin.messages("EVENTS")]


def losing(times: int) -> Callable[[bytes], bytes]:
    """Lose so many answers to a commit."""
    lost: list[bytes] = []

    def lose(data: bytes) -> bytes:
        if b'"batch":' not in data or len(lost) >= times:
            return data
        lost.append(data)
        return b""

    return lose


def some(count: int) -> list[Message]:
    return [event(number, "user.created") for number in range(1, count + 1)]


async def test_a_commit_whose_answer_is_lost_is_stored_once_and_known(
    nats_server: NatsServer,
) -> None:
    async with Line(nats_server) as line, driver_of(line.url, emit_timeout=30) as driver:
        line.back = losing(1)

        receipts = await driver.commit(Mark(PLACE, "run-1"), some(2))

    assert [one.sequence for one in receipts] == [2, 3]
    assert await stored(nats_server) == [PLACE, "events.user.created", "events.user.created"]


async def test_without_any_answer_the_mark_says_what_has_become_of_a_commit(
    nats_server: NatsServer,
) -> None:
    async with Line(nats_server) as line, driver_of(line.url, emit_timeout=1.5) as driver:
        line.back = lambda data: b"" if b'"stream":"EVENTS"' in data else data
        with pytest.raises(DriverError, match="may or may not be stored"):
            await driver.commit(Mark(PLACE, "run-1"), some(2))
        line.back = lambda data: data

        found = await driver.marked(PLACE)
        with pytest.raises(SequenceConflictError):
            await driver.commit(Mark(PLACE, "run-2"), some(2))

    assert found is not None
    assert found.run == "run-1"
    assert len(await stored(nats_server)) == 3


async def test_a_commit_over_a_line_that_is_cut_is_stored_once(nats_server: NatsServer) -> None:
    async with (
        Line(nats_server) as line,
        driver_of(line.url, emit_timeout=60, publish_timeout=5) as driver,
    ):
        commits = 20

        async with asyncio.TaskGroup() as group:
            for number in range(commits):
                mark = Mark(f"{PLACE}-{number}", f"run-{number}")
                message = event(number, "user.created")
                group.create_task(driver.commit(mark, [message, event(-number - 1)]))
                if number % 5 == 0:
                    await asyncio.sleep(0.01)
                    line.cut()

    assert len(await stored(nats_server)) == 3 * commits


@pytest.mark.parametrize("denied", ["events-inbox.>", "events.user.deleted"])
async def test_what_the_permissions_dont_cover_keeps_the_others_out_at_once(denied: str) -> None:
    config = (
        'authorization { users = [ { user: "mailer", password: "x", permissions: '
        f'{{ publish: {{ deny: ["{denied}"] }} }} }} ] }}'
    )
    with NatsServer(config=config) as server:
        login = {"nats_user": "mailer", "nats_password": "x"}
        async with driver_of(server.url, emit_timeout=30, **login) as driver:
            deleted = event(3, "user.deleted")
            with pytest.raises(NotAuthorizedError, match=r"events[.-](inbox|user\.deleted)"):
                await driver.commit(Mark(PLACE, "run-1"), [*some(2), deleted, event(4)])

            found = [one async for one in driver.admin.messages("EVENTS")]

    assert found == []


@pytest.mark.parametrize(
    ("stream", "error", "says"),
    [
        ({"subjects": ["events.>"], "allow_atomic": True}, NoStreamError, "no stream takes"),
        ({"subjects": ["events.>", "events-inbox.>"]}, PublishError, "EVENTBUS_PROVISION=auto"),
    ],
)
async def test_a_stream_that_takes_no_marks_or_batches_is_told(
    nats_server: NatsServer, stream: dict[str, object], error: type[Exception], says: str
) -> None:
    async with plain(nats_server.url) as client:
        config = json.dumps({"name": "EVENTS", "storage": "memory", **stream}).encode()
        await client.request("$JS.API.STREAM.CREATE.EVENTS", config)
    async with driver_of(
        nats_server.url, provision="off", emit_timeout=3, publish_timeout=3
    ) as driver:
        with pytest.raises(error, match=says):
            await driver.commit(Mark(PLACE, "run-1"), some(2))


async def test_more_batches_than_a_stream_has_open_are_all_committed(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "AT_ONCE", 200)
    async with (
        driver_of(nats_server.url, emit_timeout=60, publish_timeout=20) as driver,
        asyncio.TaskGroup() as group,
    ):
        for number in range(200):
            messages = [event(f"{number}-{n}", "user.created") for n in range(3)]
            group.create_task(driver.commit(Mark(f"{PLACE}-{number}", f"r{number}"), messages))

    assert len(await stored(nats_server)) == 800


LEAST = """
authorization { users = [
  { user: "admin", password: "a" },
  { user: "mailer", password: "m", permissions: {
    publish: { allow: [
      "events.mail.>", "events-dlq.mailer.>", "events-due.mail.>",
      "events-inbox.mailer.>", "events-sched.inbox.mailer.>",
      "$JS.API.STREAM.MSG.GET.EVENTS", "$JS.API.STREAM.MSG.GET.EVENTS_LATER",
      "$JS.API.CONSUMER.MSG.NEXT.EVENTS.mailer__send", "$JS.API.CONSUMER.INFO.EVENTS.mailer__send",
      "$JS.ACK.EVENTS.mailer__send.>"
    ] }
    subscribe: { allow: ["_INBOX_mailer.>"] }
  } }
] }
"""


class MailAsked(Event, name="mail.asked"):
    to: str


class MailSent(Event, name="mail.sent"):
    to: str


async def test_with_the_least_privilege_an_atomic_listener_needs_what_the_guide_says() -> None:
    def mailer(server: NatsServer, **login: str) -> EventService:
        settings = settings_of(server.url, **login)
        events = EventService("mailer", settings=settings, observers=[settled])

        @events.subscribe(MailAsked, atomic=True)
        async def send(event: MailAsked, context: Context) -> None:
            await context.emit(MailSent(to=event.to))

        return events

    outcomes: list[Outcome] = []

    def settled(happened: object) -> None:
        if isinstance(happened, Settled):
            outcomes.append(happened.outcome)

    async def is_settled() -> bool:
        return bool(outcomes)

    with NatsServer(config=LEAST) as server:
        async with mailer(server, nats_user="admin", nats_password="a"):
            pass  # it makes the streams and the durable
        login = {"nats_user": "mailer", "nats_password": "m", "provision": "off"}
        async with mailer(server, **login) as events:
            await events.emit(MailAsked(to="ada"))
            await eventually(is_settled, 30)

    assert outcomes == [Outcome.OK]
