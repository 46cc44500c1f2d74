"""How payments end."""

from typing import Annotated

from pydantic import AwareDatetime, EmailStr, NonNegativeInt, PositiveInt, StringConstraints

from eventbus.event import Event

__all__ = (
    "Currency",
    "PaymentCompleted",
    "PaymentFailed",
    "PaymentId",
    "StatementDue",
    "StatementMade",
)

PaymentId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
"""How every event calls a payment."""
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
"""An ISO 4217 code, like ``EUR``."""


class PaymentCompleted(Event, name="payment.completed", key="payment_id"):
    """The money was taken."""

    payment_id: PaymentId
    email: EmailStr
    amount: PositiveInt
    """In the currency's smallest unit, such as cents."""
    currency: Currency
    order_id: str | None = None
    """The order that it pays; None where there is none."""


class PaymentFailed(Event, name="payment.failed", key="payment_id"):
    """The money wasn't taken."""

    payment_id: PaymentId
    email: EmailStr
    amount: PositiveInt
    """In the currency's smallest unit, such as cents."""
    currency: Currency
    reason: str
    order_id: str | None = None


class StatementDue(Event, name="statement.due"):
    """It is time to count the charges; recurs."""

    due: AwareDatetime


class StatementMade(Event, name="statement.made"):
    """How many charges there were."""

    due: AwareDatetime
    completed: NonNegativeInt
    failed: NonNegativeInt
