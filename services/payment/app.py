"""Takes the money: over the HTTP API of payments, and for orders whose goods are set aside.

There is no bank behind it. As with the test cards of payment providers, the last four digits of
the card decide: ``0002`` is declined, ``9995`` has no funds, ``0069`` has expired, every other one
is charged. Of a card nothing is kept.

A charge and its event are stored in one transaction: the event waits in the outbox of the same
database, and a relay in this process takes it to the stream. So a payment is taken also while the
bus is away, and a process that is killed in between loses nothing.

Settings: ``EVENTBUS_HTTP_HOST`` and ``EVENTBUS_HTTP_PORT`` (0, the default, takes any free port),
``EVENTBUS_STORE_URL``, the database (``sqlite+aiosqlite:///.eventbus/payment.sqlite3``), and
``EVENTBUS_STATEMENT_EVERY``, how often the charges are counted (a day).
"""

from collections.abc import Mapping
from datetime import datetime
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
from typing_extensions import override

from eventbus import Context, EventService, Settings
from eventbus.asgi import CorrelationMiddleware, HttpServer, error_handlers, read_body
from schemas.payment import (
    Currency,
    PaymentCompleted,
    PaymentFailed,
    StatementDue,
    StatementMade,
)
from schemas.stock import StockReserved
from services.payment.ledger import Ledger, book, total

__all__ = ("PaymentService", "PaymentSettings")

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


class PaymentSettings(Settings):
    """Settings of the payment service, beside those of every service."""

    store_url: str = "sqlite+aiosqlite:///.eventbus/payment.sqlite3"
    """The database of charges, outbox and inbox; what is missing of it is made."""
    statement_every: float = 86400
    """Seconds between two statements."""


class PaymentService(EventService):
    """Emits how payments ended."""

    def __init__(self, settings: PaymentSettings | None = None) -> None:
        super().__init__("payment", relay=True)
        self._given = settings
        self._recurring = False
        self._ledger = self.resource(Ledger(lambda: self.settings.store_url))
        self.http = HttpServer(self, self._app())
        self.subscribe(StockReserved, self.pay_order, inbox=True)
        self.subscribe(StatementDue, self.sum_up, inbox=True)

    @property
    @override
    def settings(self) -> PaymentSettings:
        """The settings it was given, else those of the environment."""
        if self._given is None:
            self._given = PaymentSettings.load()
        return self._given

    @override
    async def start(self) -> None:
        if not self._recurring:  # the interval is a setting, and these are read when it starts
            self._recurring = True
            self.every(self.settings.statement_every, name="statement")(_due)
        await super().start()

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
        async with self._ledger.transaction() as session, self.transaction(session):
            await book(session, outcome)
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
        outcome = _charged(f"order-{event.order_id}", event.card_ending, event, event.order_id)
        await book(context.session, outcome)
        await context.emit(outcome)

    async def sum_up(self, event: StatementDue, context: Context) -> None:
        """Say how many charges there are; each tick is one event, whatever runs of this service."""
        found = await total(context.session)
        await context.emit(
            StatementMade(due=event.due, completed=found.completed, failed=found.failed)
        )


class _Bill(Protocol):
    """Who pays how much."""

    @property
    def email(self) -> str: ...
    @property
    def amount(self) -> int: ...
    @property
    def currency(self) -> str: ...


def _due(at: datetime) -> StatementDue:
    return StatementDue(due=at)


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
