"""One HTTP request at a time, with the standard library: nothing to install for a demo."""

import asyncio
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ("Answer", "UnreachableError", "get", "send")

_PATIENCE = 15.0


class UnreachableError(Exception):
    """A service didn't answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered."""

    status: int
    body: bytes

    def field(self, name: str) -> str:
        """Return a field of a JSON answer.

        Raises:
            UnreachableError: It isn't there.
        """
        try:
            return str(json.loads(self.body)[name])
        except (ValueError, KeyError, TypeError) as exc:
            raise UnreachableError(f"answer {self.status} has no {name}") from exc


async def get(url: str) -> Answer:
    """Ask for a resource.

    Raises:
        UnreachableError: No answer within 15 s.
    """
    return await asyncio.to_thread(_request, "GET", url, b"", {})


async def send(
    method: str, url: str, content: object, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send JSON, or bytes as they are.

    Raises:
        UnreachableError: No answer within 15 s.
    """
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    given = {"Content-Type": "application/json", **(headers or {})}
    return await asyncio.to_thread(_request, method, url, body, given)


def _request(method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    # Not urllib.request: it would ask the proxy of the environment for our own loopback.
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=_PATIENCE)
    try:
        connection.request(method, parts.path, body or None, dict(headers))
        response = connection.getresponse()
        return Answer(response.status, response.read())
    except (OSError, http.client.HTTPException) as exc:
        raise UnreachableError(f"{method} {url}: {exc}") from exc
    finally:
        connection.close()
