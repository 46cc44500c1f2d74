"""Orders, from the request through the stock and the payment to the mails."""

import json

from eventbus import EventService
from eventbus.delivery import Outcome
from eventbus.settings import Settings
from schemas.order import OrderCreated
from schemas.payment import PaymentFailed
from services.inventory.stock import Reservation, Stock
from tests.services.house import House, Row, Watch, api, names, running


def order(number: int, product: str = "cup", quantity: int = 1) -> OrderCreated:
    return OrderCreated(
        order_id=f"o-{number}",
        product_id=product,
        quantity=quantity,
        email="ada@example.org",
        amount=1250,
        currency="EUR",
        card_ending="4242",
    )


def served(rows: list[Row], product: str) -> list[tuple[str, str]]:
    """Return which order came out how, in the order that the stream has them."""
    payloads = [(row.name, json.loads(row.data)) for row in rows if row.name.startswith("stock.")]
    return [(name, one["order_id"]) for name, one in payloads if one["product_id"] == product]


async def test_an_order_is_confirmed_reserved_and_paid_under_one_correlation_id(
    house: House,
) -> None:
    watch = Watch(house.audit)
    wish = {
        "product_id": "cup",
        "quantity": 2,
        "email": "ada@example.org",
        "amount": 1250,
        "card": "4242424242424242",
    }

    async with (
        running(house.notification, house.inventory, house.payment, house.audit),
        api(house.order) as client,
    ):
        answer = await client.post("/orders", json=wish, headers={"X-Correlation-ID": "order-1"})
        wrong = await client.post("/orders", json={**wish, "quantity": 0})
        await watch.until(lambda: len(watch.settled) == 4)

    rows = house.rows("correlation_id = 'order-1'")
    reserved = next(row for row in rows if row.name == "stock.reserved")
    paid = next(row for row in rows if row.name == "payment.completed")
    assert (answer.status_code, wrong.status_code) == (202, 422)
    assert names(rows) == ["email.sent", "order.created", "payment.completed", "stock.reserved"]
    assert (reserved.source, reserved.key) == ("inventory", "cup")
    assert (paid.source, paid.causation_id) == ("payment", reserved.id)
    assert [mail["Subject"] for mail in house.mails()] == ["We have your order"]
    assert not [row for row in house.rows() if "42424242" in row.data]


async def test_the_goods_of_an_order_that_nobody_pays_can_be_had_again(house: House) -> None:
    watch = Watch(house.audit)
    wish = {"product_id": "cup", "quantity": 10, "email": "ada@example.org", "amount": 5}

    async with (
        running(house.inventory, house.payment, house.audit),
        api(house.order) as client,
    ):
        await client.post("/orders", json={**wish, "card": "4000000000000002"})
        await watch.until(lambda: len(watch.settled) == 4)
        await client.post("/orders", json={**wish, "card": "4242424242424242"})
        await watch.until(lambda: len(watch.settled) == 7)

    assert [name for name, _ in served(house.rows(), "cup")] == [
        "stock.reserved",
        "stock.released",
        "stock.reserved",
    ]


async def test_who_orders_a_product_first_is_served_first(
    house: House, eventbus_settings: Settings
) -> None:
    shop = EventService("shop", settings=eventbus_settings)
    watch = Watch(house.audit)
    orders = [order(number, "cup" if number % 2 else "jug", quantity=3) for number in range(12)]

    async with running(house.inventory, house.audit, shop):
        for one in orders:
            await shop.emit(one)
        await watch.until(lambda: len(watch.settled) == 24)

    for product in ("cup", "jug"):
        outcomes = served(house.rows(), product)
        expected = [one.order_id for one in orders if one.product_id == product]
        assert [order_id for _, order_id in outcomes] == expected
        assert [name for name, _ in outcomes] == ["stock.reserved"] * 3 + ["stock.refused"] * 3


async def test_a_payment_without_an_order_frees_nothing(
    house: House, eventbus_settings: Settings
) -> None:
    shop = EventService("shop", settings=eventbus_settings)
    watch = Watch(house.inventory)
    bill = {"email": "ada@example.org", "amount": 5, "currency": "EUR", "reason": "card declined"}

    async with running(house.inventory, shop):
        await shop.emit(PaymentFailed(payment_id="p-1", **bill))
        await shop.emit(PaymentFailed(payment_id="p-2", order_id="o-unknown", **bill))
        await watch.until(lambda: len(watch.settled) == 2)

    assert len(watch.ended(Outcome.DROPPED, "release")) == 2


def test_stock_answers_a_repeated_question_as_the_first_time() -> None:
    stock = Stock(opening=5)

    first = [stock.reserve("o-1", "cup", 3), stock.reserve("o-2", "cup", 3)]
    again = [stock.reserve("o-1", "cup", 3), stock.reserve("o-2", "cup", 3)]
    freed = [stock.release("o-1"), stock.release("o-1"), stock.release("o-2")]

    assert first == again == [Reservation("cup", 3, 2), Reservation("cup", 0, 2)]
    assert freed == [Reservation("cup", 3, 5), Reservation("cup", 3, 5), None]
    assert stock.reserve("o-3", "cup", 5) == Reservation("cup", 5, 0)
