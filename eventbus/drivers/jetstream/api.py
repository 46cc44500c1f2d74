"""`Api`: the JetStream JSON API as it is; no field is lost, no error of it leaves this package."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from pydantic import JsonValue

from eventbus.errors import DriverError, EventBusError, TopologyError

__all__ = ("Api", "ApiError", "Request", "Table", "number", "rows", "table", "text", "translated")

Request: TypeAlias = Callable[[str, bytes, float], Awaitable[bytes]]
"""``request(subject, payload, timeout)`` returns the reply; empty where nobody listens there.

Raises NotConnectedError or TimeoutError.
"""
Table: TypeAlias = dict[str, JsonValue]

STREAM_NOT_FOUND = 10059
STREAM_EXISTS = 10058
SUBJECTS_OVERLAP = 10065
CONSUMER_NOT_FOUND = 10014
CONSUMER_EXISTS = frozenset({10013, 10105, 10148})
MESSAGE_NOT_FOUND = 10037
NO_JETSTREAM = frozenset({0, 10035, 10039, 10076})
"""0 is ours: nobody answers, which is how a server without JetStream looks."""

_UNAVAILABLE = 503
_REMEDIES: Mapping[int, str] = {
    10002: "raise the account's limit of streams or storage, or lower EVENTBUS_MAX_BYTES",
    10005: "lower EVENTBUS_REPLICAS, or add servers to the cluster",
    10023: "give the server more storage (max_file_store), or lower EVENTBUS_MAX_BYTES",
    10026: "raise the account's limit of consumers",
    10027: "raise the account's limit of streams",
    10047: "give the server more storage (max_file_store), or lower EVENTBUS_MAX_BYTES",
    10074: "set EVENTBUS_REPLICAS=1, or connect to a cluster",
}


class ApiError(Exception):
    """The server's answer was an error; internal, see `translated`."""

    def __init__(self, *, code: int, err_code: int, description: str) -> None:
        self.code = code
        self.err_code = err_code
        self.description = description
        super().__init__(f"{description} ({code}/{err_code})")


class Api:
    """Requests to ``$JS.API``; nats-py's own drop the fields they don't know."""

    def __init__(self, request: Request) -> None:
        self._request = request

    async def call(
        self,
        verb: str,
        body: Mapping[str, object] | None = None,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 - handed on, the connection keeps the deadline
    ) -> Table:
        """Return the answer to ``verb``, such as ``STREAM.INFO.EVENTS``.

        Raises:
            ApiError: The answer is an error, unreadable, or nobody is there to answer.
            NotConnectedError: There is no connection.
            TimeoutError: No answer in ``timeout`` seconds; without permission there is none.
        """
        payload = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        answer = _parsed(await self._request(f"$JS.API.{verb}", payload, timeout))
        error = table(answer.get("error"))
        if error:
            raise ApiError(
                code=number(error.get("code")),
                err_code=number(error.get("err_code")),
                description=text(error.get("description")),
            )
        return answer

    async def items(self, verb: str, key: str) -> AsyncIterator[Table]:
        """Yield all rows of a list verb, page by page.

        Raises:
            ApiError, NotConnectedError, TimeoutError: As `call`.
        """
        offset = 0
        while True:
            answer = await self.call(verb, {"offset": offset})
            page = rows(answer.get(key))
            for row in page:
                yield row
            offset += len(page)
            if not page or offset >= number(answer.get("total")):
                return


@contextmanager
def translated(thing: str) -> Generator[None, None, None]:
    """Turn what the API says about a thing into our own errors.

    Raises:
        TopologyError: The server refuses it.
        DriverError: It can't say now, or doesn't answer.
    """
    try:
        yield
    except ApiError as exc:
        raise _explained(thing, exc) from exc
    except TimeoutError as exc:
        raise DriverError(
            f"{thing}: the JetStream API didn't answer; its cluster may have no leader now, or "
            "this user no permission on $JS.API.> (EVENTBUS_PROVISION=off needs none)"
        ) from exc


def _explained(thing: str, error: ApiError) -> EventBusError:
    remedy = _REMEDIES.get(error.err_code)
    if error.code == _UNAVAILABLE and remedy is None:
        return DriverError(f"{thing}: {error.description} ({error.err_code}); try again")
    return TopologyError(
        thing=thing,
        problem=f"the server refuses it: {error.description} (error {error.err_code})",
        remedy=remedy or "change the declaration, or what the server allows this account",
    )


def _parsed(reply: bytes) -> Table:
    if not reply:
        raise ApiError(code=_UNAVAILABLE, err_code=0, description="nobody answers for JetStream")
    try:
        return table(json.loads(reply))
    except ValueError as exc:
        raise ApiError(
            code=_UNAVAILABLE, err_code=-1, description="the answer isn't JSON"
        ) from exc


def table(value: JsonValue) -> Table:
    """Return the object that a field holds, an empty one where it holds none."""
    return value if isinstance(value, dict) else {}


def rows(value: JsonValue) -> list[Table]:
    """Return the objects in the list that a field holds."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def number(value: JsonValue) -> int:
    """Return the integer that a field holds, 0 where it holds none."""
    return value if isinstance(value, int) else 0


def text(value: JsonValue) -> str:
    """Return the string that a field holds, an empty one where it holds none."""
    return value if isinstance(value, str) else ""
