"""The only module that touches nats-py: one TCP connection, in our words and with our errors.

nats-py's own reconnecting is off: a connection that broke is thrown away and another one is made
(`eventbus.drivers.jetstream.connection`), so that each fault has one way back. Private attributes
are read through `getattr`, and nowhere else.
"""

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription

from eventbus.drivers.jetstream.credentials import Login
from eventbus.errors import (
    CertificateError,
    EventBusError,
    NotAuthorizedError,
    NotConnectedError,
    SettingsError,
)

__all__ = (
    "Raw",
    "Server",
    "Subscription",
    "Wire",
    "dial",
)

PING_INTERVAL = 5
MAX_OUTSTANDING_PINGS = 2
FLUSH_PATIENCE = 5
CLOSE_PATIENCE = 0.5
A_DAY = 86400

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')
_UNAUTHORIZED = re.compile(r"authorization violation|authentication (expired|revoked)", re.I)


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


class _Client(Client):
    """nats-py's client, with three ways closed for a message to end its read loop (T11)."""

    async def flush(self, timeout: int = FLUSH_PATIENCE) -> None:  # noqa: ASYNC109 - nats-py's
        # Twice: the ping of the first overtakes what was written in the same turn of the loop.
        await super().flush(timeout)
        await super().flush(timeout)

    async def _process_pong(self) -> None:
        # A flush that was given up leaves its future behind, and to set that once more raises.
        awaited = cast("list[asyncio.Future[bool]]", self._pongs)  # pyright: ignore[reportUnknownMemberType]
        if awaited and awaited[0].done():
            awaited[0] = asyncio.Future()
        await super()._process_pong()

    def _build_message(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: dict[str, str] | None,
    ) -> Msg:
        if not subject.isascii():
            subject = subject.decode(errors="replace").encode()
        message: Msg = super()._build_message(sid, subject, reply, data, headers)
        return message

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        if not headers:
            return None
        try:
            return await super()._process_headers(headers)  # pyright: ignore[reportUnknownMemberType]
        except (UnicodeDecodeError, IndexError):
            return None  # no headers: it isn't an event, and becomes a dead letter


class Subscription:
    """Interest in a subject, until it is ended or the connection breaks."""

    def __init__(self, subscription: NatsSubscription, end: Callable[[object], None]) -> None:
        self._subscription = subscription
        self._end = end

    async def drain(self, patience: float) -> None:
        """End it; returns once what the server had sent before was handed over."""
        with suppress(TimeoutError, nats.errors.Error):
            async with asyncio.timeout(patience):
                await self._subscription.drain()  # type: ignore[no-untyped-call]
                self._end(self)

    def abandon(self) -> None:
        """End the task behind it; nats-py leaves it where its own close fails half-way."""
        task = getattr(self._subscription, "_wait_for_msgs_task", None)
        if task is not None:
            task.cancel()


class Wire:
    """One connection to one server; it never reconnects. Made by `dial`."""

    def __init__(
        self, on_denied: Callable[[str, str], None], on_lost: Callable[[str], None]
    ) -> None:
        self._on_denied = on_denied
        self._on_lost = on_lost
        self._client = _Client()
        self._errors: list[Exception] = []
        self._subscriptions: set[Subscription] = set()
        self.server = Server("")

    async def connect(self, url: str, login: Login) -> None:
        """Connect; where it raises, `close` has to follow."""
        self.server = Server(_bare(url))
        try:
            async with asyncio.timeout(login.patience):
                await self._connect(url, login)
        except TimeoutError as exc:
            problem = f"{self.server.url} didn't answer within {login.patience:g} s"
            raise NotConnectedError(problem) from exc
        except EventBusError:
            raise
        except Exception as exc:
            # Also what nats-py lets through by mistake: it is no reason to stop trying.
            raise self._refusal([*self._errors, exc]) from exc
        if not self._client.is_connected:  # it ended between our CONNECT and its PONG
            raise self._refusal([*self._errors, ConnectionError("it closed the connection")])
        info = self._info()
        self.server = Server(
            url=self.server.url,
            version=str(info.get("version", "")),
            cluster=str(info.get("cluster", "")),
            max_payload=self._client.max_payload,
            others=tuple(one.netloc for one in self._client.discovered_servers),
        )

    async def _connect(self, url: str, login: Login) -> None:
        def told(secret: str | None) -> Callable[[], str] | None:
            return None if secret is None else lambda: self._secret(secret, login)

        await self._client.connect(
            servers=[url],
            name=login.name,
            inbox_prefix=login.inbox_prefix,
            error_cb=self._error,
            closed_cb=self._closed,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=cast("int", login.patience),
            ping_interval=PING_INTERVAL,
            max_outstanding_pings=MAX_OUTSTANDING_PINGS,
            pending_size=-1,
            user=login.user,
            password=told(login.password),
            token=told(login.token),
            nkeys_seed_str=login.nkey_seed,
            user_credentials=None if login.creds is None else RawCredentials(login.creds),
            tls=login.tls,
            tls_hostname=login.tls_hostname,
            skip_subject_validation=True,  # `check_subject` is stricter, and remembers
        )
        self._require_tls(login)

    def _refusal(self, errors: list[Exception]) -> EventBusError:
        """Return our error for what nats-py met; some only say that there was another before."""
        for error in errors:
            if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
                return _tls_refusal(self.server.url, _tls_reason(error))
            if _UNAUTHORIZED.search(str(error)):
                return NotAuthorizedError(
                    f"{self.server.url} refused the credentials ({_text(error)}); check "
                    "EVENTBUS_NATS_USER, _PASSWORD, _TOKEN, _NKEY_SEED or _CREDS, whichever this "
                    "server expects"
                )
            if "connect url" in str(error):
                return SettingsError(
                    f"EVENTBUS_NATS_URL: '{self.server.url}' isn't a server; {_text(error)}"
                )
            if isinstance(error, ConnectionError) and self._info().get("tls_verify"):
                # The alert that says why is often lost with the connection.
                return _tls_refusal(
                    self.server.url, "it refused our certificate, or that we have none"
                )
        first = next(one for one in errors if not isinstance(one, nats.errors.NoServersError))
        return NotConnectedError(f"{self.server.url}: {_text(first)}")

    def _secret(self, secret: str, login: Login) -> str:
        """Return a secret for nats-py to send, unless the line isn't encrypted as it must be."""
        self._require_tls(login)
        return secret

    def _require_tls(self, login: Login) -> None:
        # nats-py encrypts where the server asks for it, and silently doesn't where it doesn't.
        if login.tls is not None and not self._info().get("tls_required"):
            raise CertificateError(
                f"{self.server.url} doesn't use TLS, and the settings ask for it; enable TLS on "
                "the server, or use a nats:// URL and no EVENTBUS_TLS_* setting"
            )

    def _info(self) -> Mapping[str, object]:
        return cast("Mapping[str, object]", getattr(self._client, "_server_info", {}))

    async def _error(self, error: Exception) -> None:
        """Take nats-py's asynchronous errors; never raises, that would end its read loop (T11)."""
        if not self._client.is_connected:
            self._errors.append(error)
            return
        denied = _DENIED.search(str(error))
        if denied is not None:
            self._on_denied(denied[1], denied[2])
        elif isinstance(error, nats.errors.StaleConnectionError):
            self._on_lost(_text(error))

    async def _closed(self) -> None:
        error = self._client.last_error
        self._on_lost("the connection was closed" if error is None else _text(error))

    async def send(
        self,
        subject: str,
        body: bytes,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Write a message; returns before it has left this machine.

        Raises:
            NotConnectedError: The connection is gone; nothing was written.
        """
        try:
            await self._client.publish(subject, body, reply, cast("dict[str, str]", headers))
        except nats.errors.Error as exc:
            raise NotConnectedError(f"{self.server.url}: {_text(exc)}") from exc

    async def subscribe(self, subject: str, take: Callable[[Raw], None]) -> Subscription:
        """Hand every message on a subject to ``take``, which must not raise.

        Raises:
            NotConnectedError: The connection is gone.
        """

        async def deliver(message: Msg) -> None:
            take(message)

        try:
            # No limits: beyond one, nats-py drops what the server counts as delivered (T17).
            made = await self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                subject, cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except nats.errors.Error as exc:
            raise NotConnectedError(f"{self.server.url}: {_text(exc)}") from exc
        subscription = Subscription(made, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses, under the inbox prefix."""
        return self._client.new_inbox()

    async def answers(self) -> bool:
        """Wait for the server's answer to a ping; False if the connection broke."""
        try:
            # Bounded by the caller: after a timeout in here, the late answer would find a
            # cancelled future and end the read loop.
            await self._client.rtt(timeout=A_DAY)
        except (nats.errors.Error, OSError):
            return False
        return True

    async def flush(self) -> None:
        """Wait until the server has seen all that was written.

        Raises:
            NotConnectedError: It didn't in time.
        """
        try:
            await self._client.flush(timeout=FLUSH_PATIENCE)
        except (nats.errors.Error, OSError) as exc:
            raise NotConnectedError(f"{self.server.url}: {_text(exc)}") from exc

    async def close(self) -> None:
        """Send what was written and close, within `CLOSE_PATIENCE` also where nobody answers."""
        try:
            # An assertion of nats-py fails where connecting had not got far.
            with suppress(TimeoutError, OSError, nats.errors.Error, AssertionError):
                async with asyncio.timeout(CLOSE_PATIENCE):
                    await self._client.close()
        finally:
            for subscription in self._subscriptions:
                subscription.abandon()
            self.abort()

    def abort(self) -> None:
        """Drop the TCP connection; what was written and not sent is lost."""
        writer = getattr(getattr(self._client, "_transport", None), "_io_writer", None)
        if writer is not None:
            writer.transport.abort()


async def dial(
    url: str,
    login: Login,
    *,
    on_denied: Callable[[str, str], None],
    on_lost: Callable[[str], None],
) -> Wire:
    """Connect to one server and return the connection.

    ``on_denied`` is told ``"publish"`` or ``"subscription"`` and the subject, in lower case, that
    the permissions don't cover; ``on_lost`` why the connection ended, perhaps more than once.

    Raises:
        NotAuthorizedError: The server refused the credentials.
        CertificateError: TLS failed, or the server has none.
        SettingsError: The URL names no server.
        NotConnectedError: Anything else; another try may succeed.
    """
    wire = Wire(on_denied, on_lost)
    try:
        await wire.connect(url, login)
    except BaseException:
        wire.abort()
        await wire.close()
        raise
    return wire


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    return (error.reason or str(error)).replace("_", " ").lower()


def _tls_refusal(server: str, reason: str) -> CertificateError:
    return CertificateError(
        f"TLS with {server} failed: {reason}; check EVENTBUS_TLS_CA, _CERT, _KEY and _HOSTNAME, "
        "and the dates of the certificates"
    )


def _text(error: Exception) -> str:
    return str(error).removeprefix("nats: ").strip("'\" ") or type(error).__name__


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
