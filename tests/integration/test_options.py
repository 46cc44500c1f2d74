"""Options of listeners on a real server: a delay, and exceptions that are counted across runs."""

import time

import pytest

from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.errors import RetryLater
from eventbus.middleware.base import Context
from eventbus.settings import Settings
from tests.integration.shop import OrderPlaced, Shop

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def shop(nats_server: NatsServer):
    one = await Shop(Settings(nats_url=nats_server.url, grace=2)).start()
    yield one
    await one.stop()


@pytest.mark.parametrize("delay", [0.5, 5.5], ids=["in place", "scheduled"])
async def test_each_event_is_handled_so_long_after_it_was_stored(shop: Shop, delay: float) -> None:
    await shop.listen("mail.send", delay=delay)

    began = time.monotonic()
    await shop.emit("o-1", "o-2")
    settled = await shop.until(Outcome.OK, 2)

    assert time.monotonic() - began >= delay - 0.1
    assert [one.attempt for one in settled] == [1, 1]
    assert len(shop.runs) == 2


async def test_exceptions_are_counted_apart_from_other_attempts(shop: Shop) -> None:
    async def send(event: OrderPlaced, context: Context) -> None:
        if context.attempt <= 2:
            raise RetryLater(0.05)
        raise ValueError("no such customer")

    first = shop.service("mail")
    await first.subscribe(
        OrderPlaced, send, name="send", tries=9, backoff=[0.05], max_exceptions=2
    )
    async with first:
        await shop.emit("o-1")
        (dead,) = await shop.until(Outcome.DEAD, 1)

    assert (dead.attempt, dead.detail) == (4, "gave up after 2 exceptions")
