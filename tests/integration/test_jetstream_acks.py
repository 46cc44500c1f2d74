"""Acknowledgements that share a confirmation: all are known to the server, or none is taken for it."""

import asyncio

import pytest

from eventbus.delivery import Delivery, can_ack_soon
from eventbus.embedded import NatsServer
from tests.integration.rig import Line, Taken, consuming, driver_of, event, listener, pending


async def answered(deliveries: list[Delivery]) -> list[bool]:
    """Acknowledge all in one turn of the loop and return what each was told."""
    loop = asyncio.get_running_loop()
    told: list[asyncio.Future[bool]] = []
    for one in deliveries:
        assert can_ack_soon(one)
        future: asyncio.Future[bool] = loop.create_future()
        told.append(future)
        one.ack_soon(future.set_result)
    async with asyncio.timeout(30):
        return list(await asyncio.gather(*told))


@pytest.mark.parametrize("count", [20, 300], ids=["sent together", "in several parts"])
async def test_those_of_one_turn_are_all_known_to_the_server(
    nats_server: NatsServer, count: int
) -> None:
    taken = Taken()
    spec = listener(slots=count)
    async with driver_of(nats_server.url) as driver, consuming(driver, taken, spec):
        for number in range(count):
            await driver.publish(event(number))
        deliveries = [await taken.next(30) for _ in range(count)]

        told = await answered(deliveries)

        assert told == [True] * count
        assert await pending(nats_server) == (0, 0)


async def test_where_no_answer_comes_nothing_is_taken_for_settled(nats_server: NatsServer) -> None:
    taken, line = Taken(), Line(nats_server)
    spec = listener(ack_wait=30.0)
    async with (
        line,
        driver_of(line.url, publish_timeout=0.3) as driver,
        consuming(driver, taken, spec),
    ):
        await driver.publish(event())
        delivery = await taken.next(30)
        line.silence()

        told = await answered([delivery])

        assert told == [False]
        line.restore()
        await delivery.ack()
        assert await pending(nats_server) == (0, 0)


async def test_one_that_is_settled_is_not_acknowledged_again(nats_server: NatsServer) -> None:
    taken = Taken()
    async with driver_of(nats_server.url) as driver, consuming(driver, taken):
        await driver.publish(event())
        delivery = await taken.next(30)
        await delivery.ack()

        assert await answered([delivery]) == [True]
