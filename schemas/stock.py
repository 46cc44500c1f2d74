"""What happens to the stock of a product."""

from pydantic import NonNegativeInt, PositiveInt

from eventbus.event import Event
from schemas.order import AboutOrder, OrderId, ProductId

__all__ = ("StockRefused", "StockReleased", "StockReserved")


class StockReserved(AboutOrder, name="stock.reserved", key="product_id"):
    """The goods of an order are set aside."""

    left: NonNegativeInt
    """What nobody has reserved yet."""


class StockRefused(AboutOrder, name="stock.refused", key="product_id"):
    """There isn't enough for an order."""

    left: NonNegativeInt


class StockReleased(Event, name="stock.released", key="product_id"):
    """What was set aside for an order can be had again."""

    order_id: OrderId
    product_id: ProductId
    quantity: PositiveInt
    left: NonNegativeInt
