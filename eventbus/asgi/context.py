"""What an application adds: a lifespan that runs the service, a middleware that gives context."""

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

from eventbus import headers as h
from eventbus.asgi.app import ASGIApp, ASGIMessage, ASGIScope, Receive, Send
from eventbus.correlation import Scope, entered
from eventbus.ids import is_id, uuid7
from eventbus.service import EventService

__all__ = ("CORRELATION_HEADER", "CorrelationMiddleware", "lifespan")

CORRELATION_HEADER = "X-Correlation-ID"

_NAME = CORRELATION_HEADER.lower()
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_TRACE = 8192
"""Characters carried of ``tracestate`` and ``baggage``; what W3C Baggage asks for at least."""


def lifespan(events: EventService) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """Return a lifespan for Starlette or FastAPI that starts the service, and stops it at the end.

    ::

        app = FastAPI(lifespan=lifespan(events))

    An application with a lifespan of its own writes ``async with events:`` in it.
    """

    @asynccontextmanager
    async def run(_: object) -> AsyncGenerator[None, None]:
        async with events:
            yield

    return run


class CorrelationMiddleware:
    """Gives everything that is emitted while a request is served the request's context.

    The correlation id is that of ``X-Correlation-ID``, or a new one where that is missing or
    isn't an id; the response carries it. A valid ``traceparent`` with its ``tracestate``, and
    ``baggage``, travel with the events.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve a request within its context."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        found = _joined(_headers(scope))
        given = found.get(_NAME, "")
        correlation_id = given if is_id(given) else uuid7()

        async def answer(message: ASGIMessage) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                _echo(message, correlation_id)
            await send(message)

        with entered(Scope(correlation_id=correlation_id, trace=_trace(found))):
            await self._app(scope, receive, answer)


def _headers(holder: ASGIScope | ASGIMessage) -> Iterable[tuple[bytes, bytes]]:
    return cast("Iterable[tuple[bytes, bytes]]", holder.get("headers", ()))


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that matter, by lower-case name; repeated ones as a list (RFC 9110)."""
    found: dict[str, str] = {}
    for raw, value in headers:
        name = raw.decode("latin-1").lower()
        if name in h.TRACE or name == _NAME:
            text = value.decode("latin-1").strip()
            found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _trace(found: Mapping[str, str]) -> dict[str, str]:
    """Return the trace headers worth carrying; everything in a request is untrusted."""
    kept = {name: found[name] for name in h.TRACE if _carriable(found.get(name, ""))}
    if _TRACEPARENT.fullmatch(kept.get("traceparent", "")):
        return kept
    # A tracestate means nothing without its traceparent (W3C Trace Context 3.3.1).
    return {name: value for name, value in kept.items() if name == "baggage"}


def _carriable(value: str) -> bool:
    return 0 < len(value) <= _MAX_TRACE and value.isascii() and value.isprintable()


def _echo(message: ASGIMessage, correlation_id: str) -> None:
    headers = list(_headers(message))
    if all(name.lower() != _NAME.encode() for name, _ in headers):
        message["headers"] = [*headers, (_NAME.encode(), correlation_id.encode())]
