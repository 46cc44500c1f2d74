"""Real faults under the JetStream driver: nothing is lost, nothing is stored twice, it recovers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from eventbus.drivers.base import Connected, Disconnected
from eventbus.drivers.jetstream import connection
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.embedded import NatsServer
from eventbus.errors import DriverError, EmitUnknown, NotAuthorizedError, SettleError
from tests.faults.harness.pace import patience
from tests.integration.rig import Line, Taken, Told, driver_of, event, listener, stored_ids
from tests.waiting import comes_true, eventually

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]


class Load:
    """Emitters that go on through faults, and what they know of each event."""

    def __init__(self, driver: JetStreamDriver) -> None:
        self._driver = driver
        self._stopping = False
        self._count = 0
        self._changed = asyncio.Event()
        self.stored: set[str] = set()
        self.duplicates: set[str] = set()
        self.unknown: set[str] = set()

    @asynccontextmanager
    async def running(self, width: int = 16) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(width):
                group.create_task(self._emit())
            try:
                yield
            finally:
                self._stopping = True

    async def more(self, count: int, seconds: float = 9) -> None:
        """Wait until so many more events are known to be stored."""
        wanted = len(self.stored) + count
        async with asyncio.timeout(seconds * patience()):
            while len(self.stored) < wanted:
                self._changed.clear()
                await self._changed.wait()

    async def _emit(self) -> None:
        while not self._stopping:
            self._count += 1
            id = f"id-{self._count}"
            try:
                receipt = await self._driver.publish(event(self._count))
            except EmitUnknown:
                self.unknown.add(id)
                continue
            self.stored.add(id)
            if receipt.duplicate:
                self.duplicates.add(id)
            self._changed.set()


@asynccontextmanager
async def handling(driver: JetStreamDriver, seen: list[str]) -> AsyncIterator[None]:
    """Acknowledge all that arrives, and note the ids."""
    taken, spec = Taken(), listener(slots=16, ack_wait=2.0)
    await driver.provision([spec])
    consumer = await driver.consume(spec, taken)

    async def handle() -> None:
        while True:
            delivery = await taken.deliveries.get()
            seen.append(delivery.message.id or "")
            try:
                await delivery.ack()
            except SettleError:
                continue

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(handle()) for _ in range(4)]
        try:
            yield
        finally:
            await consumer.stop()
            for task in tasks:
                task.cancel()


async def until_seen(seen: list[str], wanted: set[str], seconds: float = 9) -> set[str]:
    """Return what is still missing after a while."""

    async def complete() -> bool:
        return wanted <= set(seen)

    await comes_true(complete, seconds)
    return wanted - set(seen)


async def crash(server: NatsServer) -> None:
    server.kill()
    await asyncio.to_thread(server.restart)


async def restart(server: NatsServer) -> None:
    await asyncio.to_thread(server.restart)


async def freeze(server: NatsServer) -> None:
    server.pause()
    await asyncio.sleep(1)
    server.resume()


@pytest.mark.parametrize("fault", [crash, restart, freeze])
async def test_what_is_emitted_through_a_fault_is_stored_once_and_handled(
    nats_server: NatsServer, fault: Callable[[NatsServer], object]
) -> None:
    seen: list[str] = []
    async with driver_of(nats_server.url, emit_timeout=60) as driver:
        load = Load(driver)
        async with handling(driver, seen):
            async with load.running():
                for _ in range(2):
                    await load.more(200)
                    await fault(nats_server)  # type: ignore[misc]
                await load.more(200)
            missing = await until_seen(seen, load.stored)
        status = driver.status()

    stored = await stored_ids(nats_server.url)
    assert missing == set()
    assert load.stored <= set(stored)
    assert len(stored) == len(set(stored))
    assert (load.duplicates, load.unknown) == (set(), set())
    assert status.ready


async def test_connections_that_are_reset_all_the_time_lose_nothing(
    nats_server: NatsServer,
) -> None:
    seen: list[str] = []
    async with Line(nats_server) as line, driver_of(line.url, emit_timeout=60) as driver:
        load = Load(driver)
        async with handling(driver, seen):
            async with load.running():
                for _ in range(5):
                    await load.more(50)
                    line.cut()
                await load.more(50)
            missing = await until_seen(seen, load.stored)

    stored = await stored_ids(nats_server.url)
    assert missing == set()
    assert sorted(stored) == sorted(load.stored)
    assert load.duplicates == set()


async def test_a_frozen_server_is_noticed_and_everything_goes_on_after_it(
    nats_server: NatsServer,
) -> None:
    seen: list[str] = []
    told = Told()
    driver = driver_of(nats_server.url, told, emit_timeout=1.0, connect_timeout=0.5)
    async with driver, handling(driver, seen):
        nats_server.pause()
        started = time.monotonic()
        with pytest.raises(EmitUnknown):
            await driver.publish(event("unknown"))

        lost = await told.until(Disconnected)
        noticed = time.monotonic() - started
        frozen = driver.status()
        nats_server.resume()
        await told.until(Connected, 2)
        await driver.publish(event("after"))

        assert await until_seen(seen, {"id-after"}) == set()
    assert noticed < 6 * patience()
    assert lost.problem == f"{nats_server.url} didn't answer for 3 s"
    assert not frozen.ready
    assert sorted(await stored_ids(nats_server.url)) == ["id-after", "id-unknown"]


async def test_a_server_that_has_much_to_say_first_is_waited_for(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PROBE_EVERY", 0.1)
    monkeypatch.setattr(connection, "PROBE_PATIENCE", 0.5)
    told = Told()
    pings = 0

    def without_pongs(data: bytes) -> bytes:
        nonlocal pings
        pings += data.count(b"PONG\r\n")
        return data.replace(b"PONG\r\n", b"")

    async with Line(nats_server) as line, driver_of(line.url, told) as driver:
        line.back = without_pongs
        loop = asyncio.get_running_loop()
        begun, number = loop.time(), 0
        while not pings or loop.time() < begun + 2.0:
            number += 1
            await driver.publish(event(number))
        lost = len(told.of(Disconnected))
        line.back = lambda data: data
        line.inject(b"PONG\r\n" * pings)
        await driver.publish(event("after"))

        assert (lost, told.of(Disconnected)) == (0, [])


async def test_a_line_that_swallows_everything_is_given_up(nats_server: NatsServer) -> None:
    told = Told()
    async with (
        Line(nats_server) as line,
        driver_of(line.url, told, connect_timeout=0.5) as driver,
    ):
        line.silence()
        lost = await told.until(Disconnected, seconds=6)
        line.restore()
        await told.until(Connected, 2)

        assert (await driver.publish(event())).sequence == 1
    assert "didn't answer for 3 s" in lost.problem


@pytest.mark.parametrize(
    "nonsense",
    [b"INFO nonsense\r\n", b"-ERR '\xff'\r\n"],
    ids=["info", "error"],
)
async def test_a_dead_read_loop_is_replaced(nats_server: NatsServer, nonsense: bytes) -> None:
    told, taken = Told(), Taken()
    async with Line(nats_server) as line, driver_of(line.url, told) as driver:
        await driver.provision([listener()])
        consumer = await driver.consume(listener(), taken)
        started = time.monotonic()
        line.inject(nonsense)

        await told.until(Connected, 2)
        took = time.monotonic() - started
        await driver.publish(event())
        delivery = await taken.next()
        await delivery.ack()
        await consumer.stop()
    assert took < 6 * patience()


async def test_an_error_that_nats_py_closes_for_is_no_end(nats_server: NatsServer) -> None:
    told = Told()
    async with Line(nats_server) as line, driver_of(line.url, told) as driver:
        line.inject(b"-ERR 'Maximum Payload Violation'\r\n")

        lost = await told.until(Disconnected)
        await told.until(Connected, 2)

        assert lost.problem == "maximum payload violation"
        assert (await driver.publish(event())).sequence == 1


async def test_an_event_loop_that_was_blocked_keeps_its_connection(
    nats_server: NatsServer,
) -> None:
    told = Told()
    async with Line(nats_server) as line, driver_of(line.url, told) as driver:
        line.silence()
        await asyncio.sleep(1.3)  # a ping is under way now
        line.restore()
        time.sleep(3.5)  # noqa: ASYNC251 - this is the fault

        await driver.publish(event())

    assert told.of(Disconnected) == []


async def test_an_ack_waits_for_a_server_that_comes_back(nats_server: NatsServer) -> None:
    taken, told = Taken(), Told()
    spec = listener(ack_wait=90.0)
    async with driver_of(nats_server.url, told, emit_timeout=60) as driver:
        await driver.provision([spec])
        consumer = await driver.consume(spec, taken)
        await driver.publish(event())
        delivery = await taken.next()
        nats_server.kill()
        await told.until(Disconnected)
        async with asyncio.TaskGroup() as group:
            group.create_task(delivery.ack())
            await asyncio.to_thread(nats_server.restart)

        await eventually(lambda: _is_done(driver))
        await consumer.stop()


async def _is_done(driver: JetStreamDriver) -> bool:
    (view,) = await driver.admin.consumers()
    return (view.pending, view.ack_pending) == (0, 0)


async def test_an_ack_gives_up_when_its_patience_ends(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url, emit_timeout=0.7, publish_timeout=0.3) as driver:
        await driver.provision([listener(ack_wait=9.0)])
        consumer = await driver.consume(listener(ack_wait=9.0), taken)
        await driver.publish(event())
        delivery = await taken.next()
        nats_server.pause()
        started = time.monotonic()

        with pytest.raises(SettleError, match="no answer for "):
            await delivery.ack()

        took = time.monotonic() - started
        await delivery.nak()
        await delivery.in_progress()
        nats_server.resume()
        await consumer.stop()
    assert 0.6 < took < 30


async def test_a_frozen_server_doesnt_hold_up_leaving(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url, emit_timeout=60) as driver:
        await driver.provision([listener()])
        consumer = await driver.consume(listener(), taken)
        await driver.publish(event())
        delivery = await taken.next()
        nats_server.pause()
        started = time.monotonic()

        await delivery.nak()
        await consumer.stop()
    took = time.monotonic() - started
    nats_server.resume()
    assert took < 30


async def test_a_permission_taken_away_fails_fast_and_comes_back() -> None:
    def config(denied: str) -> str:
        return f"""authorization {{ users = [ {{ user: "mailer", password: "x",
          permissions: {{ publish: {{ deny: ["{denied}"] }} }} }} ] }}"""

    told = Told()
    with NatsServer(config=config("none")) as server:
        login = {"nats_user": "mailer", "nats_password": "x"}
        async with driver_of(server.url, told, **login) as driver:
            await driver.publish(event(1))

            server.reload(config("events.user.created"))
            await eventually(lambda: _is_refused(driver))
            server.reload(config("none"))

            await eventually(lambda: _is_accepted(driver))


async def _is_refused(driver: JetStreamDriver) -> bool:
    try:
        await driver.publish(event("refused"))
    except NotAuthorizedError:
        return True
    return False


async def _is_accepted(driver: JetStreamDriver) -> bool:
    try:
        await driver.publish(event("accepted"))
    except DriverError:
        return False
    return True


async def test_an_inbox_taken_away_is_noticed_and_comes_back() -> None:
    def config(denied: str) -> str:
        return f"""authorization {{ users = [ {{ user: "mailer", password: "x",
          permissions: {{ subscribe: {{ deny: ["{denied}"] }} }} }} ] }}"""

    told = Told()
    with NatsServer(config=config("none")) as server:
        login = {"nats_user": "mailer", "nats_password": "x"}
        async with driver_of(server.url, told, **login) as driver:
            server.reload(config("_INBOX_mailer.>"))
            lost = await told.until(Disconnected)
            server.reload(config("none"))
            await told.until(Connected, 2)

            assert (await driver.publish(event())).sequence == 1
    assert "inbox" in lost.problem


async def test_a_login_that_is_revoked_for_a_while_is_no_end() -> None:
    def config(password: str) -> str:
        return f'authorization {{ user: "mailer", password: "{password}" }}'

    told = Told()
    with NatsServer(config=config("right")) as server:
        login = {"nats_user": "mailer", "nats_password": "right"}
        async with driver_of(server.url, told, **login) as driver:
            server.reload(config("changed"))
            await told.until(Disconnected)
            await eventually(lambda: _says(driver, "refused the credentials"))

            server.reload(config("right"))
            await told.until(Connected, 2)

            assert (await driver.publish(event())).sequence == 1


async def _says(driver: JetStreamDriver, words: str) -> bool:
    return any(words in problem for problem in driver.status().problems)


async def test_status_can_be_asked_from_another_thread_all_the_time(
    nats_server: NatsServer,
) -> None:
    told = Told()
    async with driver_of(nats_server.url, told) as driver:

        def ask() -> set[bool]:
            ends = time.monotonic() + 1
            seen: set[bool] = set()
            while time.monotonic() < ends:
                seen.add(driver.status().ready)
            return seen

        async with asyncio.TaskGroup() as group:
            asking = group.create_task(asyncio.to_thread(ask))
            nats_server.kill()
            await told.until(Disconnected)
            assert driver.status().problems
            await asyncio.to_thread(nats_server.restart)
            await told.until(Connected, 2)

        assert asking.result() == {True, False}
