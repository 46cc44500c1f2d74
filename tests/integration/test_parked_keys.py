"""Keys that an ordered listener has set aside: what comes of them, and how they are freed."""

from collections.abc import AsyncIterator

import pytest

from eventbus import Context, EventService
from eventbus.delivery import Reason
from eventbus.embedded import NatsServer
from eventbus.ops.deadletters import Redriven, Where, of_key, redrive
from eventbus.parked import ParkedKey
from tests.integration.rig import plain, settings_of
from tests.integration.shop import OrderPlaced, Shop, letters

pytestmark = [pytest.mark.nats]

PLACE = "mail.send"


class Sending:
    """An ordered listener that fails on some amounts of the order ``a``."""

    def __init__(self, *broken: int) -> None:
        self.broken = {*broken}
        self.handled: list[tuple[str, int]] = []

    async def __call__(self, event: OrderPlaced, context: Context) -> None:
        if event.order_id == "a" and event.amount in self.broken:
            raise ValueError("no such customer")
        self.handled.append((event.order_id, event.amount))


class Desk:
    """A shop with such a listener."""

    def __init__(self, shop: Shop, sending: Sending) -> None:
        self.shop = shop
        self.sending = sending
        self.driver = shop.driver
        self.service: EventService

    async def start(self) -> "Desk":
        """Start the listener's service, also again."""
        self.service = await self.shop.listen(
            PLACE, self.sending, ordered=True, on_failure="park_key", ack_wait=5
        )
        return self

    async def emit(self, *amounts: int, order: str = "a") -> None:
        """Emit events of one key, one after another, and wait for their ends."""
        ended = len(self.shop.settled)
        for amount in amounts:
            await self.shop.emit_one(OrderPlaced(order_id=order, amount=amount))
        await self.shop.ended(ended + len(amounts))

    async def redrive(self, where: Where | None = None) -> list[Redriven]:
        """Redrive the letters of the key that weren't, and wait for their ends."""
        ended = len(self.shop.settled)
        found = await of_key(self.driver, where or Where(key="a", redriven=False))
        done = [one async for one in redrive(self.driver, found)]
        await self.shop.ended(ended + len(done))
        return done

    async def reasons(self) -> list[str]:
        """Return why the letters are dead, in their order."""
        return [str(one.failure.reason) for one in await letters(self.driver)]

    async def is_parked(self) -> bool:
        """Tell whether a record parks the key."""
        return "a" in await self.driver.parked.keys("mail__send")


@pytest.fixture
async def shop(nats_server: NatsServer) -> AsyncIterator[Shop]:
    made = await Shop(settings_of(nats_server.url)).start()
    yield made
    await made.stop()


async def test_a_key_is_parked_with_what_follows_and_the_other_keys_go_on(shop: Shop) -> None:
    desk = await Desk(shop, Sending(1)).start()

    await desk.emit(0, 1, 2, 3)
    await desk.emit(7, order="b")

    assert desk.sending.handled == [("a", 0), ("b", 7)]
    assert await desk.reasons() == ["exception", "key_parked", "key_parked"]
    assert await desk.is_parked()


async def test_a_parked_key_stays_so_when_the_service_starts_anew(shop: Shop) -> None:
    desk = await Desk(shop, Sending(1)).start()
    await desk.emit(1)
    await desk.service.stop()
    await desk.start()

    await desk.emit(2)

    assert await desk.reasons() == ["exception", "key_parked"]


async def test_a_redrive_of_the_key_replays_its_events_in_sequence_and_frees_it(
    shop: Shop,
) -> None:
    desk = await Desk(shop, Sending(1)).start()
    await desk.emit(1, 2, 3)
    desk.sending.broken.clear()

    done = await desk.redrive()
    await desk.emit(4)

    assert [one.key_left for one in done] == [2, 1, 0]
    assert desk.sending.handled == [("a", amount) for amount in (1, 2, 3, 4)]
    assert not await desk.is_parked()
    assert len(await letters(desk.driver)) == 3


async def test_what_fails_again_parks_the_key_anew_with_those_behind_it(shop: Shop) -> None:
    desk = await Desk(shop, Sending(1, 2)).start()
    await desk.emit(1, 2, 3)
    desk.sending.broken = {2}

    await desk.redrive()
    await desk.emit(4)
    again = await desk.reasons()
    desk.sending.broken.clear()
    await desk.redrive()
    await desk.emit(5)

    assert again[3:] == ["exception", "key_parked", "key_parked"]
    assert desk.sending.handled == [("a", amount) for amount in (1, 2, 3, 4, 5)]
    assert not await desk.is_parked()


async def test_events_that_come_while_a_key_is_redriven_stay_parked_behind_it(
    shop: Shop,
) -> None:
    desk = await Desk(shop, Sending(1)).start()
    await desk.emit(1, 2)
    desk.sending.broken.clear()
    newer = iter((3, 4))
    ended = len(shop.settled)

    async for _ in redrive(desk.driver, await of_key(desk.driver, Where(key="a"))):
        ended += 1
        await shop.ended(ended)
        await desk.emit(next(newer))
        ended += 1
    before, is_parked = list(desk.sending.handled), await desk.is_parked()
    await desk.redrive()
    await desk.emit(5)

    assert (before, is_parked) == ([("a", 1), ("a", 2)], True)
    assert desk.sending.handled == [("a", amount) for amount in (1, 2, 3, 4, 5)]
    assert not await desk.is_parked()


async def test_redriving_a_part_of_its_letters_handles_them_and_leaves_the_key_parked(
    shop: Shop,
) -> None:
    desk = await Desk(shop, Sending(1)).start()
    await desk.emit(1, 2)
    desk.sending.broken.clear()

    [done] = await desk.redrive(Where(key="a", reason=Reason.EXCEPTION))
    parked = await desk.is_parked()
    [last] = await desk.redrive()

    assert (done.key_left, parked, last.key_left) == (1, True, 0)
    assert desk.sending.handled == [("a", 1), ("a", 2)]
    assert not await desk.is_parked()


async def test_one_that_died_again_alone_is_sent_before_those_behind_it(shop: Shop) -> None:
    desk = await Desk(shop, Sending(1)).start()
    await desk.emit(1, 2)
    await desk.redrive(Where(key="a", reason=Reason.EXCEPTION))
    desk.sending.broken.clear()

    done = await desk.redrive()

    assert [one.letter.number for one in done] == [3, 2]
    assert desk.sending.handled == [("a", 1), ("a", 2)]
    assert not await desk.is_parked()


@pytest.mark.parametrize("key", ["o-1", "größe", "a.b *>", " ", "", "x" * 120])
async def test_any_key_can_be_parked_and_is_found_again(shop: Shop, key: str) -> None:
    log, record = shop.driver.parked, ParkedKey(key, 7, 9, redriven=8)

    await log.write("mail__send", record)

    assert await log.keys("mail__send") == {key}
    assert await log.read("mail__send", key) == record
    assert await log.keys("mail__other") == frozenset()
    await log.free("mail__send", key)
    assert await log.read("mail__send", key) is None
    assert await log.keys("mail__send") == frozenset()


async def test_a_parked_key_has_no_age_limit(shop: Shop) -> None:
    await shop.driver.parked.write("mail__send", ParkedKey("o-1", 7, 7))

    bucket = shop.driver.admin.messages("KV_EVENTS_ATTEMPTS", "$KV.EVENTS_ATTEMPTS.>")
    [record] = [one.message async for one in bucket]

    assert record.headers["nats-ttl"] == "never"


async def test_what_somebody_else_put_among_the_parked_keys_parks_nothing(shop: Shop) -> None:
    async with plain(shop.settings.servers[0]) as client:
        for body in (b"", b"no json", b"[]", b"{}"):
            subject = "$KV.EVENTS_ATTEMPTS.mail__send.parked.o-1"
            await client.jetstream().publish(subject, body)

            assert await shop.driver.parked.keys("mail__send") == frozenset()
            assert await shop.driver.parked.read("mail__send", "o-1") is None
