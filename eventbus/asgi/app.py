"""What an ASGI application is, and whether the extra that serves one is installed."""

from collections.abc import Awaitable, Callable, MutableMapping
from importlib.util import find_spec
from typing import TypeAlias

from eventbus.errors import ConfigurationError

__all__ = ("ASGIApp", "ASGIMessage", "ASGIScope", "Receive", "Send", "require_http")

ASGIScope: TypeAlias = MutableMapping[str, object]
ASGIMessage: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[ASGIMessage]]
Send: TypeAlias = Callable[[ASGIMessage], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[ASGIScope, Receive, Send], Awaitable[None]]


def require_http() -> None:
    """Check that Starlette and uvicorn are there.

    Raises:
        ConfigurationError: They aren't, and how to get them.
    """
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise ConfigurationError(
                f"eventbus.asgi needs {package}; run: pip install 'eventbus[http]'"
            )
