"""The HTTP API of orders: order a product.

What becomes of an order is other services' work: inventory reserves, payment charges,
notification writes. Nothing is kept of it here but the event.

Settings: ``EVENTBUS_HTTP_HOST`` and ``EVENTBUS_HTTP_PORT`` (0, the default, takes any free port).
"""

from http import HTTPStatus
from typing import Annotated
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, EmailStr, Field, PositiveInt, StringConstraints
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from eventbus import EventService, Settings
from eventbus.asgi import CorrelationMiddleware, HttpServer, error_handlers, read_body
from schemas.order import OrderCreated, ProductId
from schemas.payment import Currency

__all__ = ("OrderService",)


class Wish(BaseModel):
    """What ``POST /orders`` takes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    product_id: ProductId
    quantity: Annotated[int, Field(ge=1, le=1000)] = 1
    email: EmailStr
    amount: PositiveInt
    """Of the whole order, in the currency's smallest unit, such as cents."""
    currency: Currency = "EUR"
    card: Annotated[str, StringConstraints(pattern=r"^[0-9]{12,19}$")]


class OrderService(EventService):
    """Emits that something is ordered; listens to nothing."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__("order", settings=settings)
        self.http = HttpServer(self, self._app())

    def _app(self) -> Starlette:
        return Starlette(
            routes=[Route("/orders", self.order, methods=["POST"])],
            middleware=[Middleware(CorrelationMiddleware)],
            exception_handlers=error_handlers(),
        )

    async def order(self, request: Request) -> Response:
        """Take an order: 202 with its id; mails tell what becomes of it."""
        asked = Wish.model_validate_json(await read_body(request))
        order_id = str(uuid4())
        await self.emit(
            OrderCreated(
                order_id=order_id,
                card_ending=asked.card[-4:],
                **asked.model_dump(exclude={"card"}),
            )
        )
        return JSONResponse({"order_id": order_id}, HTTPStatus.ACCEPTED)
