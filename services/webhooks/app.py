"""The gateway of GitHub's webhooks: ``POST /webhooks/github``.

A delivery is answered 202 once its event is stored, and not before. The delivery's id is the
event's, so a delivery that GitHub repeats within the duplicate window is stored once, and answered
202 as well. Otherwise: 401 the signature is missing or wrong, 400 the body isn't JSON or a header
is missing, 409 the id is taken by another delivery, 413 the body is over 1,000,000 bytes or the
server's limit, 503 with ``Retry-After`` the bus can't store it now.

Settings: ``EVENTBUS_WEBHOOK_SECRET``, shared with GitHub, without which it doesn't start;
``EVENTBUS_HTTP_HOST`` and ``EVENTBUS_HTTP_PORT`` (0, the default, takes any free port).
"""

import asyncio
import hashlib
import hmac
from http import HTTPStatus
from typing import cast

from pydantic import JsonValue, SecretStr, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from eventbus import EventService, Settings
from eventbus.asgi import RETRY_AFTER, CorrelationMiddleware, HttpServer, error_handlers, read_body
from eventbus.errors import SettingsError
from eventbus.ids import is_id
from schemas.webhook import WebhookReceived

__all__ = ("WebhooksService", "WebhooksSettings", "signature")

MAX_DELIVERY = 1_000_000
"""Bytes of a delivery's body that are taken."""
ANSWER_WITHIN = 8.0
"""Seconds to answer in; GitHub hangs up after 10."""


class WebhooksSettings(Settings):
    """Settings of the gateway, beside those of every service."""

    webhook_secret: SecretStr = SecretStr("")
    """The secret that GitHub signs deliveries with."""


class WebhooksService(EventService):
    """Emits ``webhook.received`` for each delivery; listens to nothing."""

    def __init__(self, settings: WebhooksSettings | None = None) -> None:
        super().__init__("webhooks", settings=settings)
        self._given = settings
        self._secret = b""
        self.http = HttpServer(self, self._app())

    def _app(self) -> Starlette:
        return Starlette(
            routes=[Route("/webhooks/github", self.receive, methods=["POST"])],
            middleware=[Middleware(CorrelationMiddleware)],
            exception_handlers=error_handlers(),
        )

    @override
    async def start(self) -> None:
        settings = self._given or WebhooksSettings.load()
        self._secret = settings.webhook_secret.get_secret_value().encode()
        if not self._secret:
            raise SettingsError(
                "EVENTBUS_WEBHOOK_SECRET isn't set; set it to the secret of the webhook on GitHub, "
                "without it anybody could emit events here"
            )
        await super().start()

    async def receive(self, request: Request) -> Response:
        """Take a delivery: 202 once it is stored."""
        body = await read_body(request, MAX_DELIVERY)
        given = request.headers.get("x-hub-signature-256", "")
        if not hmac.compare_digest(signature(self._secret, body).encode(), given.encode()):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED,
                "X-Hub-Signature-256 is missing or wrong; sign the body with the shared secret",
            )
        event = _event(request, _json(body))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                receipt = await self.emit(event, id=event.delivery_id)
        except TimeoutError as exc:
            raise HTTPException(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the event bus is slow; send the same delivery again",
                {"retry-after": str(RETRY_AFTER)},
            ) from exc
        content = {"id": receipt.id, "duplicate": receipt.duplicate}
        return JSONResponse(content, HTTPStatus.ACCEPTED)


def signature(secret: bytes, body: bytes) -> str:
    """Return what ``X-Hub-Signature-256`` must say of a body."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def _event(request: Request, body: JsonValue) -> WebhookReceived:
    kind = request.headers.get("x-github-event", "")
    delivery = request.headers.get("x-github-delivery", "")
    for name, value in (("X-GitHub-Event", kind), ("X-GitHub-Delivery", delivery)):
        if not is_id(value):
            problem = f"{name} is missing, or isn't printable ASCII without spaces"
            raise HTTPException(HTTPStatus.BAD_REQUEST, problem)
    action = body.get("action") if isinstance(body, dict) else None
    try:
        return WebhookReceived(
            provider="github",
            kind=kind,
            delivery_id=delivery,
            action=action if isinstance(action, str) else None,
            body=body,
        )
    except ValidationError as exc:  # a number that JSON can write and a float can't hold
        raise _not_json() from exc


def _json(body: bytes) -> JsonValue:
    try:
        # In a list, because the event wraps it too: what is nested as deep as a reader can go
        # would be accepted here, and be a dead letter at every listener.
        values = cast("list[JsonValue]", from_json(b"[%b]" % body, allow_inf_nan=False))
    except ValueError as exc:
        raise _not_json() from exc
    if len(values) != 1:
        raise _not_json()
    return values[0]


def _not_json() -> HTTPException:
    return HTTPException(HTTPStatus.BAD_REQUEST, "the body isn't JSON")
