"""What happens to an order, from the wish to the payment."""

from typing import Annotated

from pydantic import EmailStr, PositiveInt, StringConstraints

from eventbus.event import Event
from schemas.payment import Currency

__all__ = ("AboutOrder", "FollowUpDue", "OrderCreated", "OrderId", "ProductId")

OrderId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""How every event calls an order."""
ProductId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""How every event calls a product."""


class AboutOrder(Event):
    """What each event about an order carries, so that no listener has to ask back."""

    order_id: OrderId
    product_id: ProductId
    quantity: PositiveInt
    email: EmailStr
    amount: PositiveInt
    """Of the whole order, in the currency's smallest unit, such as cents."""
    currency: Currency
    card_ending: Annotated[str, StringConstraints(pattern=r"^[0-9]{4}$")]
    """The last four digits of the card; more of it is in no event."""


class OrderCreated(AboutOrder, name="order.created", key="product_id"):
    """Somebody ordered a product; by product, since orders of one compete for its stock."""


class FollowUpDue(Event, name="follow_up.due", key="order_id", expires="7d"):
    """It is time to ask somebody how they like what they ordered; emitted with a delay."""

    order_id: OrderId
    email: EmailStr
