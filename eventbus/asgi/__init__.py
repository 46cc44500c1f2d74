"""Joins web frameworks and the bus: lifespan, correlation, probes, error answers, and a server.

Lifespan and middleware are plain ASGI, so Starlette and FastAPI need two lines. Starlette and
uvicorn (the extra ``http``) are imported where they are first needed.
"""

from eventbus.asgi.answers import MAX_BODY, RETRY_AFTER, error_handlers, read_body
from eventbus.asgi.app import ASGIApp
from eventbus.asgi.context import CORRELATION_HEADER, CorrelationMiddleware, lifespan
from eventbus.asgi.probes import routes
from eventbus.asgi.server import HttpServer

__all__ = (
    "CORRELATION_HEADER",
    "MAX_BODY",
    "RETRY_AFTER",
    "ASGIApp",
    "CorrelationMiddleware",
    "HttpServer",
    "error_handlers",
    "lifespan",
    "read_body",
    "routes",
)
