"""What a connection knows of the other side: the server, its messages, what is subscribed to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ("Raw", "Server", "Subscription")


class Raw(Protocol):
    """A message as it came from the server, or one of its statuses."""

    @property
    def subject(self) -> str:
        """What it was published to; for a status, the inbox it answers to."""
        ...

    @property
    def reply(self) -> str:
        """Where to answer; JetStream's ack subject. Empty for a status."""
        ...

    @property
    def data(self) -> bytes:
        """The body."""
        ...

    @property
    def headers(self) -> Mapping[str, str] | None:
        """The headers, and ``Status`` and ``Description`` for a status."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """Whom we are connected to."""

    url: str
    """Without user and password."""
    version: str = ""
    cluster: str = ""
    max_payload: int = 1024 * 1024
    others: tuple[str, ...] = ()
    """Host and port of the other servers of the cluster, as this one told."""


class Subscription(Protocol):
    """Interest in a subject, until it is ended or the connection breaks."""

    async def drain(self, patience: float) -> None:
        """End it; returns once what the server had sent before was handed over."""
        ...
