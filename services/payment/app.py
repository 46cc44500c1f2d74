"""Takes the money: over the HTTP API of payments, and for orders whose goods are set aside.

There is no bank behind it. As with the test cards of payment providers, the last four digits of
the card decide: ``0002`` is declined, ``9995`` has no funds, ``0069`` has expired, every other one
is charged. Nothing is kept of a card or of a payment but the event.

Settings: ``EVENTBUS_HTTP_HOST`` and ``EVENTBUS_HTTP_PORT`` (0, the default, takes any free port).
"""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Protocol
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, EmailStr, PositiveInt, StringConstraints
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from eventbus import Context, EventService, Settings
from eventbus.asgi import CorrelationMiddleware, HttpServer, error_handlers, read_body
from schemas.payment import Currency, PaymentCompleted, PaymentFailed
from schemas.stock import StockReserved

__all__ = ("PaymentService",)

REFUSALS: Mapping[str, str] = MappingProxyType(
    {"0002": "card declined", "9995": "insufficient funds", "0069": "card expired"}
)
"""Why a card is refused, by its last four digits."""


class Charge(BaseModel):
    """What ``POST /payments`` takes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    email: EmailStr
    amount: PositiveInt
    """In the currency's smallest unit, such as cents."""
    currency: Currency = "EUR"
    card: Annotated[str, StringConstraints(pattern=r"^[0-9]{12,19}$")]


class PaymentService(EventService):
    """Emits how payments ended."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__("payment", settings=settings)
        self.http = HttpServer(self, self._app())
        self.subscribe(StockReserved, self.pay_order)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[Route("/payments", self.pay, methods=["POST"])],
            middleware=[Middleware(CorrelationMiddleware)],
            exception_handlers=error_handlers(),
        )

    async def pay(self, request: Request) -> Response:
        """Charge a card: 201 with the payment's id, or 402 with that and the reason."""
        asked = Charge.model_validate_json(await read_body(request))
        outcome = _charged(str(uuid4()), asked.card[-4:], asked)
        await self.emit(outcome)
        if isinstance(outcome, PaymentCompleted):
            content = {"payment_id": outcome.payment_id, "status": "completed"}
            return JSONResponse(content, HTTPStatus.CREATED)
        content = {
            "payment_id": outcome.payment_id,
            "status": "failed",
            "reason": outcome.reason,
        }
        return JSONResponse(content, HTTPStatus.PAYMENT_REQUIRED)

    async def pay_order(self, event: StockReserved, context: Context) -> None:
        """Charge the card of an order; an order is one payment, however often it is tried."""
        payment_id = f"order-{event.order_id}"
        await context.emit(_charged(payment_id, event.card_ending, event, event.order_id))


class _Bill(Protocol):
    """Who pays how much."""

    @property
    def email(self) -> str: ...
    @property
    def amount(self) -> int: ...
    @property
    def currency(self) -> str: ...


def _charged(
    payment_id: str, card_ending: str, bill: _Bill, order_id: str | None = None
) -> PaymentCompleted | PaymentFailed:
    """Charge a card, and return how it ended."""
    reason = REFUSALS.get(card_ending)
    if reason is None:
        return PaymentCompleted(
            payment_id=payment_id,
            email=bill.email,
            amount=bill.amount,
            currency=bill.currency,
            order_id=order_id,
        )
    return PaymentFailed(
        payment_id=payment_id,
        email=bill.email,
        amount=bill.amount,
        currency=bill.currency,
        reason=reason,
        order_id=order_id,
    )
