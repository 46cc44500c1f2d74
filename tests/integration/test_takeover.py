"""Taking over an ordered durable from a process that is cut off, frozen or gone."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from eventbus.delivery import Delivery
from eventbus.drivers.base import Consumer, ConsumerSpec
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.jetstream.durables import pin_timeout
from eventbus.embedded import NatsServer
from eventbus.worker.heartbeat import BEATS
from tests.faults.harness.pace import patience
from tests.integration.rig import Line, driver_of, event, listener, pending, plain

pytestmark = pytest.mark.nats
ACK_WAIT = 1.5
DURABLE = "EVENTS.mailer__welcome"


def ordered() -> ConsumerSpec:
    return listener(ordered=True, ack_wait=ACK_WAIT, slots=8)


class Hand:
    """The taker of one process: holds what it is given, and keeps its leases."""

    def __init__(self) -> None:
        self.held: dict[int, Delivery] = {}
        self.taken: Counter[int] = Counter()
        self.order: list[int] = []
        """What it could handle, in that order."""
        self.open = asyncio.Event()
        self._older: set[int] = set()

    def take(self, delivery: Delivery) -> None:
        """Take a delivery."""
        self.held[delivery.sequence] = delivery
        self._older.discard(delivery.sequence)
        self.taken[delivery.sequence] += 1

    def halt(self) -> None:
        """Begin with nothing more."""
        self.open.clear()
        self._older = set(self.held)

    async def hand_back(self) -> None:
        """Give back what was taken before."""
        older, self._older = self._older, set()
        for sequence in older:
            await self.held.pop(sequence).nak()

    def resume(self) -> None:
        """Go on."""
        self.open.set()

    async def beat(self) -> None:
        """Keep all leases, until cancelled."""
        while True:
            for one in list(self.held.values()):
                await one.in_progress()
            await asyncio.sleep(ACK_WAIT / BEATS)

    async def work(self, count: int) -> list[int]:
        """Handle so many events, and return all that were handled yet, in their order."""
        while len(self.order) < count:
            await until(lambda: self.open.is_set() and bool(self.held))
            sequence = min(self.held)
            self.order.append(sequence)
            await self.held.pop(sequence).ack()
        return self.order


@asynccontextmanager
async def contending(driver: JetStreamDriver, hand: Hand) -> AsyncIterator[Consumer]:
    """Have a process that works the durable when it is its turn."""
    consumer = await driver.consume_in_order(ordered(), hand)
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(hand.beat())
        yield consumer
        hand.halt()
        await consumer.stop()
        await hand.hand_back()
        beating.cancel()


class Predecessor:
    """The process that had the durable before: it holds events, and is cut off from its pin."""

    def __init__(self, client: Client, messages: list[Msg]) -> None:
        self._client = client
        self._messages = messages

    @classmethod
    async def with_events(cls, client: Client, count: int) -> "Predecessor":
        """Take so many events."""
        inbox = await client.subscribe(client.new_inbox())
        ask = {"batch": count, "expires": 5_000_000_000, "group": "ordered"}
        pull = f"$JS.API.CONSUMER.MSG.NEXT.{DURABLE}"
        await client.publish(pull, json.dumps(ask).encode(), reply=inbox.subject)
        messages = [await inbox.next_msg(timeout=5) for _ in range(count)]
        return cls(client, messages)

    async def lose_its_turn(self) -> None:
        """Have the server give the durable to another process."""
        await self._client.request(f"$JS.API.CONSUMER.UNPIN.{DURABLE}", b'{"group":"ordered"}')

    async def say(self, number: int, word: bytes) -> None:
        """Send a word about one of its events that was long under way."""
        await self._client.request(self._messages[number - 1].reply, word, timeout=5)

    @asynccontextmanager
    async def keeping(self, number: int) -> AsyncIterator[None]:
        """Keep one of its events, though its turn is over."""

        async def beat() -> None:
            while True:
                await self.say(number, b"+WPI")
                await asyncio.sleep(ACK_WAIT / BEATS)

        async with asyncio.TaskGroup() as group:
            beating = group.create_task(beat())
            yield
            beating.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a process is given, which announces itself to nobody."""
    async with asyncio.timeout(20 * patience()):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


async def turn(client: Client) -> tuple[str, float]:
    """Return whose turn it is, and for how many seconds it has been."""
    answer = await client.request(f"$JS.API.CONSUMER.INFO.{DURABLE}")
    info = json.loads(answer.data)
    [group] = info["priority_groups"]
    since = moment(info["ts"]) - moment(group["pinned_ts"])
    return group["pinned_client_id"], since.total_seconds()


def moment(time: str) -> datetime:
    """Return a time of the server."""
    return datetime.fromisoformat(time[:26].rstrip("Z") + "+00:00")


async def test_the_process_whose_turn_it_is_keeps_it_while_it_asks_for_nothing(
    nats_server: NatsServer,
) -> None:
    busy, idle = Hand(), Hand()
    async with (
        driver_of(nats_server.url) as driver,
        driver_of(nats_server.url) as other,
        plain(nats_server.url) as client,
    ):
        await driver.provision([ordered()])
        async with contending(driver, busy) as consumer:
            await driver.publish(event(1))
            await until(busy.open.is_set)
            async with contending(other, idle):
                consumer.limit(0)
                before, lasted = await turn(client)
                while lasted < 1.5 * pin_timeout(ordered()):
                    await asyncio.sleep(0.05)
                    now, lasted = await turn(client)
                consumer.limit(8)
                await driver.publish(event(2))
                order = await busy.work(2)

    assert (now, order, idle.taken) == (before, [1, 2], Counter())


async def test_newer_events_wait_until_those_of_a_process_that_is_gone_come_back(
    nats_server: NatsServer,
) -> None:
    hand = Hand()
    async with driver_of(nats_server.url) as driver, plain(nats_server.url) as client:
        await driver.provision([ordered()])
        for number in (1, 2):
            await driver.publish(event(number))
        before = await Predecessor.with_events(client, 2)
        async with contending(driver, hand):
            await before.lose_its_turn()
            for number in (3, 4):
                await driver.publish(event(number))
            await until(lambda: {3, 4} <= hand.held.keys())
            was_open = hand.open.is_set()
            order = await hand.work(4)

    assert (was_open, order) == (False, [1, 2, 3, 4])


async def test_an_acknowledgement_that_comes_late_hides_no_event_that_is_still_out(
    nats_server: NatsServer,
) -> None:
    hand = Hand()
    async with driver_of(nats_server.url) as driver, plain(nats_server.url) as client:
        await driver.provision([ordered()])
        for number in (1, 2):
            await driver.publish(event(number))
        before = await Predecessor.with_events(client, 2)
        async with contending(driver, hand):
            async with before.keeping(2):
                await before.lose_its_turn()
                await driver.publish(event(3))
                await until(lambda: {1, 3} <= hand.held.keys())
                times = hand.taken[3]

                await before.say(1, b"+ACK")
                await until(lambda: hand.taken[3] > times or hand.open.is_set())
                was_open = hand.open.is_set()
            order = await hand.work(2)

    assert (was_open, order) == (False, [2, 3])


async def test_a_process_whose_connection_breaks_goes_on_in_order(
    nats_server: NatsServer,
) -> None:
    hand = Hand()
    async with (
        Line(nats_server) as line,
        driver_of(nats_server.url) as source,
        driver_of(line.url) as driver,
    ):
        await driver.provision([ordered()])
        async with contending(driver, hand):
            for number in range(4):
                await source.publish(event(number))
            await until(lambda: len(hand.held) == 4)

            line.cut()
            await source.publish(event(4))
            order = await hand.work(5)

    assert order == [1, 2, 3, 4, 5]


async def test_a_process_that_may_not_look_never_begins_and_says_why() -> None:
    config = """
    authorization { users: [
      {user: admin, password: s3cret}
      {user: mail, password: s3cret, permissions: {publish: {deny: "$JS.API.CONSUMER.INFO.>"}}}
    ] }
    """
    hand = Hand()
    with NatsServer(config=config) as server:
        login = {"nats_password": "s3cret"}
        async with (
            driver_of(server.url, nats_user="admin", **login) as admin,
            driver_of(server.url, nats_user="mail", provision="off", **login) as driver,
        ):
            await admin.provision([ordered()])
            async with contending(driver, hand):
                await admin.publish(event(1))
                await until(lambda: not driver.status().ready)
                problems = driver.status().problems

    assert "can't know whether it is its turn" in problems[0]
    assert not hand.open.is_set()


async def test_newer_events_wait_for_one_that_was_lost_with_the_connection(
    nats_server: NatsServer,
) -> None:
    hand = Hand()
    async with (
        Line(nats_server) as line,
        driver_of(nats_server.url) as source,
        driver_of(line.url) as driver,
    ):
        await driver.provision([ordered()])
        async with contending(driver, hand):
            await source.publish(event(1))
            await hand.work(1)

            line.back = lambda _: b""
            await source.publish(event(2))
            while await pending(nats_server) != (0, 1):  # noqa: ASYNC110 - the server's state
                await asyncio.sleep(0.01)
            line.cut()
            line.back = lambda data: data
            await source.publish(event(3))
            order = await hand.work(3)

    assert order == [1, 2, 3]
