"""One TCP connection of nats-py, in our words and with our errors.

nats-py's own reconnecting is off: a connection that broke is thrown away and another one is made
(`eventbus.drivers.jetstream.connection`), so that each fault has one way back. Private attributes
are read through `getattr`, and nowhere else: where one isn't as expected, messages go through
nats-py's public API, and not past it through a `Lane`.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import cast
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import RawCredentials
from nats.aio.msg import Msg

from eventbus.drivers.jetstream.checks import MESSAGE_ID
from eventbus.drivers.jetstream.credentials import Login
from eventbus.drivers.jetstream.frame import Frame, publish_command
from eventbus.drivers.jetstream.lane import Lane
from eventbus.drivers.jetstream.peer import Raw, Server, Subscription
from eventbus.drivers.jetstream.plain import (
    FLUSH_PATIENCE,
    PlainClient,
    PlainSubscription,
    heeding,
)
from eventbus.drivers.jetstream.refusals import refusal, text
from eventbus.errors import (
    CertificateError,
    EventBusError,
    NotConnectedError,
)

__all__ = ("Wire", "dial")

PING_INTERVAL = 5
MAX_OUTSTANDING_PINGS = 2
CLOSE_PATIENCE = 0.5
A_DAY = 86400
ALIGNMENT_TRIES = 20
MAX_PENDING = 1024 * 1024
"""Bytes written that the socket hasn't taken; requests that can wait do so beyond."""

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')


class _LaneSubscription:
    """A subscription on the fast lane."""

    def __init__(self, wire: "Wire", lane: Lane, sid: bytes) -> None:
        self._wire = wire
        self._lane = lane
        self._sid = sid

    async def drain(self, patience: float) -> None:
        """End it; returns once what the server had sent before was handed over."""
        self._lane.unsubscribe(self._sid)
        with suppress(TimeoutError, NotConnectedError):
            async with asyncio.timeout(patience):
                await self._wire.flush()
        self._lane.forget(self._sid)


class Wire:
    """One connection to one server; it never reconnects. Made by `dial`."""

    def __init__(
        self, on_denied: Callable[[str, str], None], on_lost: Callable[[str], None]
    ) -> None:
        self._on_denied = on_denied
        self._on_lost = on_lost
        self._client = PlainClient()
        self._errors: list[Exception] = []
        self._subscriptions: set[PlainSubscription] = set()
        self._lane: Lane | None = None
        self.server = Server("")

    async def connect(self, url: str, login: Login) -> None:
        """Connect; where it raises, `close` has to follow."""
        self.server = Server(_bare(url))
        try:
            async with asyncio.timeout(login.patience):
                await heeding(self._connect(url, login))
        except TimeoutError as exc:
            problem = f"{self.server.url} didn't answer within {login.patience:g} s"
            raise NotConnectedError(problem) from exc
        except EventBusError:
            raise
        except Exception as exc:
            # Also what nats-py lets through by mistake: it is no reason to stop trying.
            raise self._refusal(exc) from exc
        if not self._client.is_connected:  # it ended between our CONNECT and its PONG
            raise self._refusal(ConnectionError("it closed the connection"))
        if login.fast_lane:
            self._lane = await self._attached()
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

    async def _attached(self) -> Lane | None:
        """Return a lane on this connection's socket; None where this nats-py isn't as expected."""
        transport = getattr(self._client, "_transport", None)
        writer = getattr(transport, "_io_writer", None)
        reader = getattr(transport, "_io_reader", None)
        if not isinstance(writer, asyncio.StreamWriter):  # a WebSocket, or another version
            return None
        for _ in range(ALIGNMENT_TRIES):
            buffers = getattr(reader, "_buffer", None), getattr(self._parser(), "buf", None)
            below = writer.transport.get_protocol()
            if not all(isinstance(one, bytearray) for one in buffers):
                return None
            # The lane has to begin where a frame begins: nothing may be half-way in a buffer.
            if not any(buffers) and isinstance(below, asyncio.Protocol):
                return Lane(cast("asyncio.Transport", writer.transport), below, MAX_PENDING)
            await asyncio.sleep(0)
        return None

    def _parser(self) -> object:
        return getattr(self._client, "_ps", None)

    @property
    def lane(self) -> Lane | None:
        """The way past nats-py; None where messages go through it."""
        return self._lane

    def _refusal(self, *errors: Exception) -> EventBusError:
        return refusal(self.server.url, [*self._errors, *errors], self._info())

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
        """Take nats-py's asynchronous errors; never raises, that would end its read loop."""
        if not self._client.is_connected:
            self._errors.append(error)
            return
        denied = _DENIED.search(str(error))
        if denied is not None:
            self._on_denied(denied[1], denied[2])
        elif isinstance(error, nats.errors.StaleConnectionError):
            self._on_lost(text(error))

    async def _closed(self) -> None:
        error = self._client.last_error
        self._on_lost("the connection was closed" if error is None else text(error))

    def send(
        self,
        subject: str,
        body: bytes,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> None:
        """Write a message; returns before it has left this machine.

        ``id`` is what the server deduplicates by.

        Raises:
            NotConnectedError: The connection is gone; nothing was written.
        """
        if self._lane is not None:
            if not self._client.is_connected:
                raise NotConnectedError(f"{self.server.url}: the connection was closed")
            self._lane.write(publish_command(subject, reply, body, headers, id))
            return
        given = {**(headers or {}), **({} if id is None else {MESSAGE_ID: id})}
        try:
            # It waits for nothing as long as its writer lives: we set no limit to what is pending.
            _at_once(self._client.publish(subject, body, reply, given or None))
        except (nats.errors.Error, BlockingIOError) as exc:
            raise NotConnectedError(f"{self.server.url}: {text(exc)}") from exc

    async def subscribe(
        self, subject: str, take: Callable[[Raw], None], queue: str = ""
    ) -> Subscription:
        """Hand every message on a subject to ``take``, which must not raise.

        With a queue, one member of its group gets each.

        Raises:
            NotConnectedError: The connection is gone.
        """
        if self._lane is not None:
            return _LaneSubscription(self, self._lane, self._lane.subscribe(subject, take, queue))

        async def deliver(message: Msg) -> None:
            take(message)

        try:
            # No limits: beyond one, nats-py drops what the server counts as delivered.
            made = await heeding(
                self._client.subscribe(  # pyright: ignore[reportUnknownMemberType]
                    subject, queue, cb=deliver, pending_msgs_limit=0, pending_bytes_limit=0
                )
            )
        except nats.errors.Error as exc:
            raise NotConnectedError(f"{self.server.url}: {text(exc)}") from exc
        subscription = PlainSubscription(made, self._subscriptions.discard)
        self._subscriptions.add(subscription)
        return subscription

    async def listen(
        self,
        prefix: str,
        take: Callable[[Raw], None],
        answered: Callable[[bytes, Frame], None],
    ) -> None:
        """Hand every message on ``prefix`` and one token more to ``take``.

        Where it can, it hands those without headers to ``answered``, with their token.

        Raises:
            NotConnectedError: The connection is gone.
        """
        if self._lane is None:
            await self.subscribe(f"{prefix}*", take)
        else:
            self._lane.expect(prefix, self._lane.subscribe(f"{prefix}*", take), answered)

    @property
    def heard(self) -> int:
        """A number that grows while the server says something."""
        lane = 0 if self._lane is None else self._lane.heard
        return lane + int(self._client.stats["in_msgs"])

    @property
    def is_full(self) -> bool:
        """Whether more is written than the socket takes."""
        if self._lane is not None:
            return self._lane.is_full
        return self._client.pending_data_size > MAX_PENDING

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses, under the inbox prefix."""
        return self._client.new_inbox()

    async def answers(self) -> bool:
        """Wait for the server's answer to a ping; False if the connection broke."""
        try:
            # Bounded by the caller: after a timeout in here, the late answer would find a
            # cancelled future and end the read loop.
            await heeding(self._client.rtt(timeout=A_DAY))
        except (nats.errors.Error, OSError):
            return False
        return True

    async def flush(self) -> None:
        """Wait until the server has seen all that was written.

        Raises:
            NotConnectedError: It didn't in time.
        """
        self._write_out()
        try:
            await heeding(self._client.flush(timeout=FLUSH_PATIENCE))
        except (nats.errors.Error, OSError) as exc:
            raise NotConnectedError(f"{self.server.url}: {text(exc)}") from exc

    async def close(self) -> None:
        """Send what was written and close, within `CLOSE_PATIENCE` also where nobody answers."""
        self._write_out()
        try:
            # An assertion of nats-py fails where connecting had not got far.
            with suppress(TimeoutError, OSError, nats.errors.Error, AssertionError):
                async with asyncio.timeout(CLOSE_PATIENCE):
                    await heeding(self._client.close())
        finally:
            for subscription in self._subscriptions:
                subscription.abandon()
            self.abort()

    def _write_out(self) -> None:
        """Hand what the lane has collected to the socket, before nats-py writes more."""
        if self._lane is not None:
            self._lane.flush()

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


def _at_once(coroutine: Coroutine[object, object, None]) -> None:
    """Run a coroutine that has nothing to wait for.

    Raises:
        BlockingIOError: It would wait after all.
    """
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise BlockingIOError("its writer has ended")


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
