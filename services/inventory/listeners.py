"""Reserves the goods of an order, product by product in the order of the orders.

The stock lives in the memory of this process and is gone with it.

Settings: ``EVENTBUS_OPENING_STOCK``, how much there is of each product at first (100).
"""

from pydantic import PositiveInt

from eventbus import Context, Discard, EventService, Settings
from schemas.order import OrderCreated
from schemas.payment import PaymentFailed
from schemas.stock import StockRefused, StockReleased, StockReserved
from services.inventory.stock import Stock

__all__ = ("InventoryService", "InventorySettings")


class InventorySettings(Settings):
    """Settings of the inventory service, beside those of every service."""

    opening_stock: PositiveInt = 100
    """How much there is of each product at first."""


class InventoryService(EventService):
    """Emits for each order whether its goods are set aside, and when they are free again."""

    def __init__(self, settings: InventorySettings | None = None) -> None:
        super().__init__("inventory", settings=settings)
        self._given = settings
        self._opened: Stock | None = None
        # Who orders first is served first: so one product's orders one after the other.
        self.subscribe(OrderCreated, self.reserve, ordered=True)
        self.subscribe(PaymentFailed, self.release)

    @property
    def stock(self) -> Stock:
        """What there is."""
        if self._opened is None:
            settings = self._given or InventorySettings.load()
            self._opened = Stock(settings.opening_stock)
        return self._opened

    async def reserve(self, event: OrderCreated, context: Context) -> None:
        """Set the goods of an order aside, or refuse it."""
        made = self.stock.reserve(event.order_id, event.product_id, event.quantity)
        outcome = StockReserved if made.quantity else StockRefused
        await context.emit(outcome(**event.model_dump(), left=made.left))

    async def release(self, event: PaymentFailed, context: Context) -> None:
        """Give back the goods of an order that nobody pays."""
        if event.order_id is None:
            raise Discard("the payment belongs to no order")
        freed = self.stock.release(event.order_id)
        if freed is None:
            raise Discard("the order holds no goods here")
        await context.emit(
            StockReleased(
                order_id=event.order_id,
                product_id=freed.product_id,
                quantity=freed.quantity,
                left=freed.left,
            )
        )
