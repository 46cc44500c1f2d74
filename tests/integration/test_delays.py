"""Delayed events against the real server: on time, once, cancelled or moved exactly."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from eventbus import Context, Event, EventService
from eventbus.clock import SystemClock
from eventbus.drivers.jetstream.streams import negotiated
from eventbus.embedded import NatsServer
from eventbus.errors import IdConflictError, UnsupportedError
from eventbus.telemetry.signals import Cancelled, Emitted, Happened
from tests.integration.rig import driver_of, plain, settings_of
from tests.waiting import comes_true, eventually

pytestmark = [pytest.mark.nats]

TICK = timedelta(milliseconds=250)
"""What the server says it is late by at most."""


class MailDue(Event, name="mail.due", key="to"):
    to: str
    text: str = ""


class Post:
    """A service that delays mails, what its listener got, and when."""

    def __init__(self, server: NatsServer, **settings: object) -> None:
        self.told: list[Happened] = []
        self.got: list[tuple[Context, datetime]] = []
        given = settings_of(server.url, **settings)
        self.events = EventService("post", settings=given, observers=[self.told.append])
        self.events.subscribe(MailDue)(self.send)

    async def send(self, event: MailDue, context: Context) -> None:
        self.got.append((context, SystemClock().now()))

    @property
    def ids(self) -> Counter[str]:
        """How often each event came."""
        return Counter(context.id for context, _ in self.got)

    async def has(self, count: int, seconds: float = 30) -> bool:
        """Wait until so many came."""

        async def came() -> bool:
            return len(self.got) >= count

        return await comes_true(came, seconds)


@asynccontextmanager
async def working(server: NatsServer, **settings: object) -> AsyncIterator[Post]:
    post = Post(server, **settings)
    async with post.events:
        yield post


async def waiting(server: NatsServer) -> dict[str, int]:
    """Return how many schedules the server holds, by the subject where they wait."""
    async with plain(server.url) as client:
        ask = json.dumps({"subjects_filter": "events-sched.>"}).encode()
        info = json.loads((await client.request("$JS.API.STREAM.INFO.EVENTS_LATER", ask)).data)
    return info["state"].get("subjects", {})


async def test_a_delayed_event_is_the_event_that_was_emitted_and_comes_on_time(
    nats_server: NatsServer,
) -> None:
    async with working(nats_server) as post:
        emitted = SystemClock().now()
        receipt = await post.events.emit(
            MailDue(to="ada"), delay=1, correlation_id="story-1", headers={"x-tenant": "größer"}
        )
        assert await post.has(1)

    context, came = post.got[0]
    assert receipt.scheduled is not None
    due = receipt.scheduled.at
    assert timedelta(seconds=1) <= due - emitted < timedelta(seconds=2)
    assert came >= due
    assert (context.id, context.correlation_id, context.key) == (receipt.id, "story-1", "ada")
    assert dict(context.headers) == {"x-tenant": "größer"}
    assert context.time < due
    assert [one.due for one in post.told if isinstance(one, Emitted)] == [due]
    assert await waiting(nats_server) == {}


async def test_events_come_at_their_own_times_in_whatever_order_they_were_emitted(
    nats_server: NatsServer,
) -> None:
    start = SystemClock().now()
    times = {
        name: start + timedelta(seconds=s) for name, s in (("c", 2.4), ("a", 0.6), ("b", 1.5))
    }

    async with working(nats_server) as post:
        for name, at in times.items():
            await post.events.emit(MailDue(to=name), at=at)
        await post.events.emit(MailDue(to="past"), at=start - timedelta(days=400))
        assert await post.has(4)

    assert [context.key for context, _ in post.got if context.key != "past"] == ["a", "b", "c"]
    assert all(came >= times.get(str(context.key), start) for context, came in post.got)


async def test_an_event_may_wait_for_decades(nats_server: NatsServer) -> None:
    async with working(nats_server) as post:
        at = SystemClock().now() + timedelta(days=36_500)
        receipt = await post.events.emit(MailDue(to="ada"), at=at)

        assert receipt.scheduled is not None
        assert list(await waiting(nats_server)) == [f"events-sched.post.{receipt.id}"]


async def test_what_waits_survives_a_kill_of_the_server(nats_server: NatsServer) -> None:
    async with working(nats_server) as post:
        soon = await post.events.emit(MailDue(to="soon"), delay=3)
        overdue = [await post.events.emit(MailDue(to=f"{n}"), delay=1) for n in range(20)]
        nats_server.kill()
        await asyncio.sleep(1.1)  # they fall due while there is no server
        nats_server.restart()
        assert await post.has(21, 40)
        await asyncio.sleep(0.5)  # what came twice would come by then

    assert post.ids == dict.fromkeys([one.id for one in [soon, *overdue]], 1)


async def test_what_waits_outlives_the_age_limit_of_its_stream(nats_server: NatsServer) -> None:
    async with working(nats_server, max_age=1, duplicate_window=0.9, emit_timeout=0.8) as post:
        await post.events.emit(MailDue(to="ada"), delay=3)

        assert await post.has(1)


async def test_the_same_id_scheduled_twice_is_one_event_at_the_first_time(
    nats_server: NatsServer,
) -> None:
    async with working(nats_server) as post:
        first = await post.events.emit(MailDue(to="ada"), id="mail-1", delay=2)
        again = await post.events.emit(MailDue(to="ada"), id="mail-1", delay=3600)
        with pytest.raises(IdConflictError, match="which waits until"):
            await post.events.emit(MailDue(to="eve"), id="mail-1", delay=1)
        assert await post.has(1)
        late = await post.events.emit(MailDue(to="ada"), id="mail-1", delay=0)
        await asyncio.sleep(1)

    assert again.scheduled == first.scheduled
    assert (first.duplicate, again.duplicate, late.duplicate) == (False, True, True)
    assert late.scheduled is None
    assert post.ids == {"mail-1": 1}


async def test_a_lost_answer_is_no_second_event(nats_server: NatsServer) -> None:
    async with working(nats_server) as post:
        driver = driver_of(nats_server.url)
        async with driver:
            event = MailDue(to="ada")
            receipt = await post.events.emit(event, id="mail-1", delay=2)
            # The try that was stored, sent again by a process that got no answer.
            repeated = await post.events.emit(event, id="mail-1", delay=2)
            assert await post.has(1)
            await asyncio.sleep(0.5)

    assert (receipt.id, repeated.id) == ("mail-1", "mail-1")
    assert post.ids == {"mail-1": 1}


async def test_a_redelivered_listener_delays_the_same_event_once(nats_server: NatsServer) -> None:
    class OrderPlaced(Event, name="order.placed"):
        number: int

    async with working(nats_server) as post:

        async def remind(event: OrderPlaced, context: Context) -> None:
            receipt = await context.emit(MailDue(to="ada"), delay=1.5)
            receipts.append((receipt.id, receipt.duplicate))
            if context.attempt < 3:
                raise ConnectionError("refused")

        receipts: list[tuple[str, bool]] = []
        await post.events.subscribe(OrderPlaced, remind)
        await post.events.emit(OrderPlaced(number=1))
        assert await post.has(1)
        await asyncio.sleep(1)

    assert len(set(receipts)) == 2
    assert sum(post.ids.values()) == 1


async def test_a_cancelled_event_never_comes(nats_server: NatsServer) -> None:
    async with working(nats_server) as post:
        receipt = await post.events.emit(MailDue(to="ada"), delay=3)
        other = await post.events.emit(MailDue(to="eve"), delay=3)

        cancelled = [await post.events.cancel(receipt.scheduled) for _ in range(2)]
        assert await post.has(1)
        await asyncio.sleep(0.5)

    assert cancelled == [True, True]
    assert post.ids == {other.id: 1}
    assert [one for one in post.told if isinstance(one, Cancelled)] == [
        Cancelled(receipt.id, "post")
    ] * 2


async def test_it_is_too_late_to_cancel_what_came_and_what_nobody_delayed(
    nats_server: NatsServer,
) -> None:
    async with working(nats_server) as post:
        direct = await post.events.emit(MailDue(to="ada"))
        receipt = await post.events.emit(MailDue(to="ada"), delay=0.1)
        assert await post.has(2)

        assert await post.events.cancel(receipt.scheduled) is False
        assert await post.events.cancel(direct.scheduled) is False
        assert await post.events.cancel("mail-nobody-knows") is False
        assert await post.events.reschedule(receipt.scheduled, delay=1) is None
        assert await post.events.reschedule(direct.scheduled, delay=1) is None


async def test_an_id_that_was_cancelled_stays_cancelled(nats_server: NatsServer) -> None:
    async with working(nats_server) as post:
        await post.events.emit(MailDue(to="ada"), id="mail-1", delay=60)
        await post.events.cancel("mail-1")

        again = await post.events.emit(MailDue(to="ada"), id="mail-1", delay=0)
        moved = await post.events.reschedule("mail-1", delay=0)
        await asyncio.sleep(1)

    assert (again.duplicate, again.scheduled, moved) == (True, None, None)
    assert post.got == []


async def test_a_rescheduled_event_comes_once_at_its_new_time(nats_server: NatsServer) -> None:
    async with working(nats_server) as post:
        later = await post.events.emit(MailDue(to="later"), delay=2)
        sooner = await post.events.emit(MailDue(to="sooner"), delay=3600, expires="10m")

        moved = await post.events.reschedule(later.scheduled, delay=3)
        at = SystemClock().now() + timedelta(seconds=1)
        moved_up = await post.events.reschedule(sooner.id, at=at)
        assert await post.has(2)
        await asyncio.sleep(0.5)

    assert moved is not None
    assert moved_up is not None
    assert moved_up.at == at
    assert [context.key for context, _ in post.got] == ["sooner", "later"]
    assert all(came >= due for (_, came), due in zip(post.got, (at, moved.at), strict=True))
    assert set(post.ids.values()) == {1}


async def test_an_event_is_cancelled_or_comes_also_at_the_very_moment(
    nats_server: NatsServer,
) -> None:
    count = 600

    async def one(post: Post, number: int, at: datetime) -> tuple[str, bool]:
        receipt = await post.events.emit(MailDue(to="ada"), at=at)
        # Around the moment when the server takes them in hand, all of them.
        jitter = 0.2 * (number * 7919 % count) / count - 0.05
        await asyncio.sleep((at - SystemClock().now()).total_seconds() + jitter)
        if number % 2:
            return receipt.id, await post.events.cancel(receipt.scheduled)
        return receipt.id, await post.events.reschedule(receipt.scheduled, delay=3600) is not None

    async with working(nats_server, emit_timeout=30, publish_timeout=10) as post:
        # All at once, so that the server is at it for a while.
        at = SystemClock().now() + timedelta(seconds=2)
        tries = (one(post, number, at) for number in range(count))
        answers = dict(await asyncio.gather(*tries))
        too_late = {id for id, in_time in answers.items() if not in_time}
        assert await post.has(len(too_late))
        await asyncio.sleep(1)

    assert post.ids == dict.fromkeys(too_late, 1)
    assert too_late


async def test_two_that_move_one_event_at_once_leave_one_event(nats_server: NatsServer) -> None:
    async with working(nats_server) as post:
        receipt = await post.events.emit(MailDue(to="ada"), delay=3600)

        moved = await asyncio.gather(
            *(post.events.reschedule(receipt.scheduled, delay=1 + n / 10) for n in range(4))
        )
        assert await post.has(1)
        await asyncio.sleep(1)

    assert any(moved)
    assert post.ids == {receipt.id: 1}


async def test_an_event_that_expired_before_it_came_is_a_dead_letter(
    nats_server: NatsServer,
) -> None:
    class CodeSent(Event, name="code.sent", expires="1s"):
        number: int

    async with working(nats_server) as post:
        taken: list[int] = []

        async def take(event: CodeSent) -> None:
            taken.append(event.number)

        past = datetime(2020, 1, 1, tzinfo=UTC)
        await post.events.emit(CodeSent(number=1), expires=past)
        await post.events.emit(CodeSent(number=2))
        await post.events.emit(CodeSent(number=3), delay=1.2)  # counted from its own time
        await asyncio.sleep(1.1)
        await post.events.subscribe(CodeSent, take, start="all")

        async def settled() -> bool:
            return taken == [3]

        await eventually(settled, 30)
        async with plain(nats_server.url) as client:
            state = (await client.jetstream().stream_info("EVENTS_DLQ")).state

    assert state.messages == 2


async def test_a_server_whose_schedules_do_not_work_refuses_by_name(
    nats_server: NatsServer,
) -> None:
    driver = driver_of(nats_server.url)
    post = EventService("post", driver=driver, settings=settings_of(nats_server.url))

    async with post:
        driver._server = negotiated(3)
        with pytest.raises(UnsupportedError, match=r"schedules with nats-server 2\.12"):
            await post.emit(MailDue(to="ada"), delay=1)
        assert (await post.emit(MailDue(to="ada"))).scheduled is None


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"delay": 1, "at": datetime(2030, 1, 1, tzinfo=UTC)}, TypeError, "not both"),
        ({"at": datetime(2030, 1, 1)}, ValueError, "no time zone"),  # noqa: DTZ001 - refused
        ({"at": "tomorrow"}, TypeError, "at= is a datetime"),
        ({"at": datetime(2300, 1, 1, tzinfo=UTC)}, ValueError, "more than 100 years"),
        ({"delay": -1}, ValueError, "isn't a duration"),
        ({"delay": "soon"}, ValueError, "isn't a duration"),
        ({"delays": 1}, TypeError, "did you mean 'delay'"),
        ({"expires": datetime(2030, 1, 1)}, ValueError, "no time zone"),  # noqa: DTZ001 - refused
    ],
)
async def test_a_time_that_is_none_is_refused(
    nats_server: NatsServer, options: dict[str, object], error: type[Exception], says: str
) -> None:
    async with working(nats_server) as post:
        with pytest.raises(error, match=says):
            await post.events.emit(MailDue(to="ada"), **options)  # type: ignore[call-overload]
    assert post.got == []
