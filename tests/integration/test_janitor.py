"""The janitor on a real server: what it purges, what it leaves, and what it tells."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from eventbus.clock import SystemClock
from eventbus.drivers.base import ConsumerSpec
from eventbus.drivers.jetstream import turn
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.jetstream.turn import Turn
from eventbus.embedded import NatsServer
from eventbus.errors import BackpressureError
from eventbus.telemetry.conditions import DurablesChecked, RoomShort, Unattended, UnreadAging
from eventbus.telemetry.signals import Happened
from eventbus.worker.janitor import Janitor
from tests.integration.rig import Taken, driver_of, event, hpub, put_raw
from tests.waiting import eventually

pytestmark = [pytest.mark.nats]

TRIES = 8
MEGABYTE = 1024 * 1024
DAY = 86400.0
BODY = b"x" * 10_000


class Ahead(SystemClock):
    """A clock that is ahead."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead  # noqa: TID251 - a clock


def spec(name: str, *events: str) -> ConsumerSpec:
    events = events or ("user.created",)
    return ConsumerSpec(f"mailer__{name}", "mailer", name, events, ack_wait=2)


def janitor(
    driver: JetStreamDriver, told: list[Happened] | None = None, ahead: float = 0
) -> Janitor:
    assert driver.room is not None
    told = [] if told is None else told
    return Janitor(driver.room, told.append, Ahead(ahead))


@asynccontextmanager
async def taking(driver: JetStreamDriver, one: ConsumerSpec) -> AsyncIterator[Taken]:
    taken = Taken()
    consumer = await driver.consume(one, taken)
    try:
        yield taken
    finally:
        await consumer.stop()


async def ids_in(driver: JetStreamDriver) -> list[str]:
    """Return the ids of what the stream of events holds; empty for the janitor's mark."""
    return [one.message.id or "" async for one in driver.admin.messages("EVENTS")]


async def fill(driver: JetStreamDriver, name: str = "user.created", body: bytes = BODY) -> int:
    """Publish until there is no room, and return how many it were."""
    number = 0
    while True:
        try:
            await driver.publish(event(f"{name}-{len(body)}-{number}", name, body))
        except BackpressureError:
            return number
        number += 1


async def test_what_one_durable_has_not_handled_stays_for_it(nats_server: NatsServer) -> None:
    quick, slow = spec("quick"), spec("slow")
    async with driver_of(nats_server.url, max_bytes=MEGABYTE) as driver:
        await driver.provision([quick, slow])
        stored = await fill(driver)
        async with taking(driver, quick) as taken:
            await taken.acked(stored)
        async with taking(driver, slow) as taken:
            await taken.acked(10)

        await janitor(driver).look()

        assert len(await ids_in(driver)) == stored - 10


async def test_room_is_made_per_event_and_only_where_all_have_handled_it(
    nats_server: NatsServer,
) -> None:
    created, deleted = spec("created"), spec("deleted", "user.deleted")
    async with driver_of(nats_server.url, max_bytes=MEGABYTE) as driver:
        await driver.provision([created, deleted])
        await driver.publish(event("kept", "user.deleted"))
        stored = await fill(driver)
        async with taking(driver, created) as taken:
            await taken.acked(stored)

        await janitor(driver).look()

        assert await ids_in(driver) == ["id-kept"]


async def test_a_stream_with_room_is_left_alone(nats_server: NatsServer) -> None:
    one = spec("created")
    async with driver_of(nats_server.url, max_bytes=MEGABYTE) as driver:
        await driver.provision([one])
        for number in range(30):
            await driver.publish(event(number, body=BODY))
        async with taking(driver, one) as taken:
            await taken.acked(30)

        await janitor(driver).look()

        assert len(await ids_in(driver)) == 30


async def test_what_nobody_listens_to_goes_once_it_is_old(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url, max_bytes=MEGABYTE) as driver:
        stored = await fill(driver)

        await janitor(driver).look()
        fresh = await ids_in(driver)
        await janitor(driver, ahead=700).look()

        assert len(fresh) == stored
        assert await ids_in(driver) == []


async def test_ids_are_known_as_long_as_there_is_room_for_them(nats_server: NatsServer) -> None:
    one = spec("created")
    async with driver_of(
        nats_server.url, max_bytes=MEGABYTE, duplicate_window=5, emit_timeout=3
    ) as driver:
        await driver.provision([one])
        for number in range(60):
            await driver.publish(event(number, body=BODY))
        async with taking(driver, one) as taken:
            await taken.acked(60)
        await asyncio.sleep(5)  # the server's window
        for number in range(60, 88):
            await driver.publish(event(number, body=BODY))
        async with taking(driver, one) as taken:
            await taken.acked(28)

        await janitor(driver).look()

        assert await ids_in(driver) == [f"id-{number}" for number in range(60, 88)]


async def test_a_subject_that_is_a_wildcard_purges_nothing(nats_server: NatsServer) -> None:
    one = spec("created")
    async with driver_of(nats_server.url, max_bytes=MEGABYTE) as driver:
        await driver.provision([one])
        await fill(driver)
        before = await ids_in(driver)
        await put_raw(nats_server.url, hpub(b"events.>", b"NATS/1.0\r\n\r\n"))

        await janitor(driver, ahead=700).look()

        assert set(before) <= set(await ids_in(driver))


async def test_what_waits_for_room_comes_once_there_is_some(nats_server: NatsServer) -> None:
    one = spec("created")
    async with driver_of(nats_server.url, max_bytes=MEGABYTE) as driver:
        await driver.provision([one])
        stored = await fill(driver)
        receipt = await driver.hold(event("held", body=BODY))

        async with taking(driver, one) as taken:
            await taken.acked(stored)
            await janitor(driver).look()
            held = await taken.next()

        assert receipt.stream == "EVENTS_LATER"
        assert (held.message.subject, held.message.id) == ("events.user.created", "id-held")


async def test_what_waits_for_room_is_stored_once_beside_the_same_event(
    nats_server: NatsServer,
) -> None:
    one = spec("created")
    async with driver_of(nats_server.url, max_bytes=MEGABYTE) as driver:
        await driver.provision([one])
        stored = await fill(driver)
        await driver.hold(event("held"))
        async with taking(driver, one) as taken:
            await taken.acked(stored)
            await janitor(driver).look()

            await driver.publish(event("held"))
            await driver.publish(event("last"))
            ids = await taken.acked(2)
            await driver.hold(event("end"))
            ids += await taken.acked(1)

        assert ids == ["id-held", "id-last", "id-end"]


@pytest.mark.parametrize("marked", [True, False], ids=["with a mark", "before the first mark"])
@pytest.mark.usefixtures("_nats_binary")
async def test_what_waits_for_room_outlives_a_restart_after_a_purge(marked: bool) -> None:
    # Without a sourced message in the stream, a restarted server begins to source at the time of
    # the stream's newest message, and skips what waited before.
    one, other = spec("created"), spec("other", "user.updated")
    for _ in range(TRIES):
        with NatsServer() as server:
            async with driver_of(server.url, max_bytes=MEGABYTE) as driver:
                await driver.provision([one, other])
                if not await _waits_behind_newer(driver, one, other, marked=marked):
                    continue
                server.kill()
                await asyncio.to_thread(server.restart)

                async with taking(driver, other) as taken, taking(driver, one) as held:
                    async with asyncio.TaskGroup() as group:
                        working = group.create_task(_acking(taken))
                        await eventually(lambda: _cleaned_until(driver, held, 3), 15)
                        working.cancel()
                    ids = [(await held.next()).message.id for _ in range(3)]
        break
    assert ids == ["id-held-0", "id-held-1", "id-held-2"]


async def _waits_behind_newer(
    driver: JetStreamDriver, one: ConsumerSpec, other: ConsumerSpec, *, marked: bool
) -> bool:
    """Have events wait for room, and newer ones stored; the server may be faster than we are."""
    async with taking(driver, one) as taken:
        await driver.hold(event("first"))
        await taken.acked(1)
        stored = await fill(driver)
        await taken.acked(stored)
    if marked:
        await janitor(driver).look()
        await fill(driver, "user.updated")
    for number in range(3):
        await driver.hold(event(f"held-{number}", body=BODY))
    if not marked:
        await janitor(driver).look()
        await fill(driver, "user.updated")
    async with taking(driver, other) as taken:
        await taken.acked(10)
    await janitor(driver).look(pressed=True)
    newer = await fill(driver, "user.updated", BODY[:9_999])
    return newer > 0 and "id-held-0" not in await ids_in(driver)


async def _acking(taken: Taken) -> None:
    while True:
        await (await taken.deliveries.get()).ack()


async def _cleaned_until(driver: JetStreamDriver, taken: Taken, count: int) -> bool:
    await janitor(driver).look(pressed=True)
    return taken.waiting() >= count


async def test_what_has_left_the_stream_of_what_waits_is_removed_from_it(
    nats_server: NatsServer,
) -> None:
    one = spec("created")
    async with driver_of(nats_server.url) as driver:
        await driver.provision([one])
        async with taking(driver, one) as taken:
            for number in range(5):
                await driver.hold(event(number))
            await taken.acked(5)
        assert driver.room is not None

        await driver.room.settle_position()
        await driver.room.settle_position()

        assert (await driver.room.later()).messages == 1  # the mark
        assert await ids_in(driver) == [*(f"id-{one}" for one in range(5)), ""]


async def test_too_much_that_waits_is_refused(nats_server: NatsServer) -> None:
    async with driver_of(nats_server.url, later_max_bytes=MEGABYTE) as driver:
        assert driver.room is not None
        await driver.room.later()
        at = datetime.now(UTC) + timedelta(hours=1)  # noqa: TID251 - the server's clock counts

        async def schedule(count: int) -> None:
            for number in range(count):
                holder = f"events-sched.mailer.{number}"
                await driver.schedule(event(number, body=BODY), at=at, holder=holder)

        with pytest.raises(BackpressureError, match="EVENTBUS_LATER_MAX_BYTES") as refused:
            await schedule(200)

        assert refused.value.stream == "EVENTS_LATER"
        assert (await driver.room.later()).share > 0.8


async def test_a_durable_that_nobody_works_is_named(nats_server: NatsServer) -> None:
    told: list[Happened] = []
    async with driver_of(nats_server.url, max_bytes=MEGABYTE) as driver:
        await driver.provision([spec("created")])
        stored = await fill(driver)

        await janitor(driver, told, ahead=6 * DAY).look()

    assert [one for one in told if isinstance(one, Unattended)] == [
        Unattended("mailer__created", stored)
    ]
    [aging] = [one for one in told if isinstance(one, UnreadAging)]
    assert (aging.durable, aging.unread) == ("mailer__created", stored)
    assert aging.age == pytest.approx(6 * DAY, abs=300)
    assert aging.max_age == 7 * DAY
    assert DurablesChecked(("mailer__created",), ("mailer__created",)) in told
    [short] = [one for one in told if isinstance(one, RoomShort)]
    assert short.held_by == ("mailer__created",)


async def test_a_durable_at_work_is_no_alarm(nats_server: NatsServer) -> None:
    told: list[Happened] = []
    one = spec("created")
    async with driver_of(nats_server.url) as driver:
        await driver.provision([one])
        await driver.publish(event())
        async with taking(driver, one) as taken:
            await taken.next()  # and not settled

            await janitor(driver, told).look()

    assert DurablesChecked((), ()) in told


async def test_one_process_has_the_turn_until_it_lets_it_run_out(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "LASTS", 3)
    async with driver_of(nats_server.url) as driver:
        connection = driver._connection
        first, second = (Turn(connection, "$KV.EVENTS_ATTEMPTS.duty") for _ in range(2))

        taken = [await first.take(), await first.take(), await second.take()]

        assert taken == [True, True, False]
        await eventually(second.take, 10)
        assert not await first.take()
