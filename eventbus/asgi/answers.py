"""How a request's body is read, and what a client is told when it or the bus has a problem."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

from pydantic import ValidationError

from eventbus.asgi.app import require_http
from eventbus.errors import (
    DriverError,
    EventBusError,
    IdConflictError,
    InvalidEventError,
    PayloadTooLargeError,
    StoreError,
)

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ("MAX_BODY", "RETRY_AFTER", "ErrorHandler", "error_handlers", "read_body")

ErrorHandler: TypeAlias = "Callable[[Request, Exception], Awaitable[Response]]"

RETRY_AFTER = 5
"""Seconds that a client is asked to wait where the bus can't take an event."""
MAX_BODY = 1_000_000
"""Bytes of a request's body that `read_body` takes, unless told otherwise."""


def error_handlers() -> "dict[type[Exception], ErrorHandler]":
    """Return what an application answers to errors, as ``exception_handlers=``, in JSON.

    - 400: the body isn't JSON.
    - 409: another event is stored under that id.
    - 413: the event is over the server's limit.
    - 422: the body, or the event made of it, doesn't fit; ``problems`` lists each field.
    - 503 with ``Retry-After``: the bus, or the database of its outbox, can't store the event, or
      nobody knows (`EmitUnknown`).

    An `HTTPException` keeps its status. What a client sent is never repeated to it.

    Raises:
        ConfigurationError: Starlette isn't installed.
    """
    require_http()
    from starlette.exceptions import HTTPException

    return {
        ValidationError: _unfit,
        InvalidEventError: _invalid,
        IdConflictError: _conflict,
        PayloadTooLargeError: _too_large,
        DriverError: _unavailable,
        StoreError: _unavailable,
        HTTPException: _as_json,
    }


async def read_body(request: "Request", limit: int = MAX_BODY) -> bytes:
    """Return a request's body, without ever holding more than ``limit`` bytes of it.

    Raises:
        HTTPException: 413, it is longer.
    """
    from starlette.exceptions import HTTPException

    body = bytearray()
    declared = request.headers.get("content-length", "")
    too_long = HTTPException(413, f"the body is over {limit} bytes")
    if declared.isdecimal() and int(declared) > limit:
        raise too_long
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise too_long
        body += chunk
    return bytes(body)


async def _unfit(_: "Request", error: Exception) -> "Response":
    assert isinstance(error, ValidationError), "registered for another exception"
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if any(one["type"] == "json_invalid" for one in found):
        return _answer(400, "request.json", "the body isn't JSON")
    problems = [(".".join(map(str, one["loc"])), one["msg"]) for one in found]
    return _answer(422, "request.invalid", "the body doesn't fit", problems=_listed(problems))


async def _invalid(_: "Request", error: Exception) -> "Response":
    assert isinstance(error, InvalidEventError), "registered for another exception"
    return _answer(422, error.code, str(error), problems=_listed(error.problems))


async def _conflict(_: "Request", error: Exception) -> "Response":
    return _answer(409, _code(error), "another event is stored under this id")


async def _too_large(_: "Request", error: Exception) -> "Response":
    return _answer(413, _code(error), str(error))


async def _unavailable(_: "Request", error: Exception) -> "Response":
    # Not the error's own words: they name servers, streams and listeners.
    answer = _answer(503, _code(error), "the event bus can't store this now; try again later")
    answer.headers["retry-after"] = str(RETRY_AFTER)
    return answer


async def _as_json(_: "Request", error: Exception) -> "Response":
    from starlette.exceptions import HTTPException

    assert isinstance(error, HTTPException), "registered for another exception"
    answer = _answer(error.status_code, f"http.{error.status_code}", error.detail)
    answer.headers.update(error.headers or {})
    return answer


def _answer(status: int, code: str, detail: str, **more: object) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse({"error": code, "detail": detail, **more}, status)


def _listed(problems: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"field": where, "message": what} for where, what in problems]


def _code(error: Exception) -> str:
    return error.code if isinstance(error, EventBusError) else "error"
