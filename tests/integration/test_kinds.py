"""Kinds of events against the real server: who gets them, and where they are kept."""

import asyncio

import pytest

from eventbus import Context, DomainEvent, Event, EventService, NotificationEvent
from eventbus.drivers.memory import MemoryDriver
from eventbus.embedded import NatsServer
from eventbus.errors import FixedEventError
from tests.integration.rig import plain, settings_of

pytestmark = [pytest.mark.nats]


class CartEmptied(DomainEvent, name="cart.emptied"):
    cart_id: str


class CartShared(DomainEvent, name="cart.shared", driver="queue"):
    cart_id: str


class InvoiceDue(Event, name="invoice.due", can_unqueue=False):
    order_id: str


class OrderShipped(NotificationEvent, name="order.shipped", tags=("shop",)):
    order_id: str


async def durables(server: NatsServer) -> list[str]:
    async with plain(server.url) as client:
        return [one.name for one in await client.jetstream().consumers_info("EVENTS")]


async def test_a_domain_event_is_handled_before_the_emit_returns_and_needs_no_durable(
    nats_server: NatsServer,
) -> None:
    events = EventService("shop", settings=settings_of(nats_server.url))
    got: list[Event] = []

    @events.subscribe(CartEmptied)
    async def restock(event: CartEmptied) -> None:
        got.append(event)

    @events.subscribe(OrderShipped)
    async def mail(event: OrderShipped) -> None: ...

    async with events:
        await events.emit(CartEmptied(cart_id="c-1"))

        assert got == [CartEmptied(cart_id="c-1")]
        assert await durables(nats_server) == ["shop__mail"]


async def test_a_listener_of_a_kind_gets_all_events_of_it_whatever_carries_them(
    nats_server: NatsServer,
) -> None:
    events = EventService("shop", settings=settings_of(nats_server.url))
    got: asyncio.Queue[tuple[Event, tuple[str, ...], str]] = asyncio.Queue()
    for event in (CartEmptied, CartShared, OrderShipped):
        events.registry.register(event)

    @events.subscribe(DomainEvent)
    async def note(event: DomainEvent, context: Context) -> None:
        got.put_nowait((event, context.tags, context.headers.get("tenant", "")))

    async with events, asyncio.timeout(30):
        await events.emit(CartEmptied(cart_id="c-1"), tags=("vip",))
        await events.emit(OrderShipped(order_id="o-1"))
        await events.emit(CartShared(cart_id="c-2").with_metadata(tenant="acme"))

        assert [await got.get(), await got.get()] == [
            (CartEmptied(cart_id="c-1"), ("vip",), ""),
            (CartShared(cart_id="c-2"), (), "acme"),
        ]
        assert got.empty()


@pytest.mark.parametrize("real", [True, False])
async def test_a_delayed_event_that_can_not_be_unqueued_is_neither_cancelled_nor_moved(
    nats_server: NatsServer, real: bool
) -> None:
    driver = None if real else MemoryDriver()
    events = EventService("shop", settings=settings_of(nats_server.url), driver=driver)
    async with events:
        fixed = await events.emit(InvoiceDue(order_id="o-1"), delay=600)
        free = await events.emit(OrderShipped(order_id="o-1"), delay=600)

        with pytest.raises(FixedEventError, match="can_unqueue=False"):
            await events.cancel(fixed.scheduled)
        with pytest.raises(FixedEventError):
            await events.reschedule(fixed.id, delay=1)
        assert await events.cancel(free.scheduled)
