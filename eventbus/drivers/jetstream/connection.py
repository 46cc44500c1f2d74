"""`Connection`: always has a link to some server, or is making one; there is one way back.

Whatever ends a link (a killed server, a closed or expired login, a dead read loop, a server that
stopped answering), it is thrown away and a new one is made, with a growing pause between rounds.
"""

import asyncio
import ipaddress
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from urllib.parse import urlsplit

from eventbus.drivers.base import Connected, Disconnected, Notify
from eventbus.drivers.jetstream.checks import check_subject
from eventbus.drivers.jetstream.credentials import Login, login_of
from eventbus.drivers.jetstream.link import Link, is_no_responders
from eventbus.drivers.jetstream.peer import Server
from eventbus.errors import (
    CertificateError,
    EventBusError,
    NotAuthorizedError,
    NotConnectedError,
    SettingsError,
)
from eventbus.settings import Settings

__all__ = ("Connection", "pause_after")

PROBE_EVERY = 1.0
PROBE_PATIENCE = 3.0
"""A server that doesn't answer a ping for so long, and says nothing else, counts as gone."""
SILENCE = 8.0
"""So long without an answer is a problem, even if nobody has noticed the loss; and a server whose
answer waits behind all else that it has to say counts as gone."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0


def pause_after(
    failures: int,
    *,
    first: float = FIRST_PAUSE,
    longest: float = LONGEST_PAUSE,
    chance: Callable[[], float] = random.random,
) -> float:
    """Return how long to wait after so many failures: doubling, with half of it left to chance."""
    return float(min(longest, first * 2 ** min(failures, 16)) * (0.5 + chance() / 2))


class Connection:
    """The connection of one driver: `open` it, `run` it in a task, `close` it."""

    def __init__(self, settings: Settings, service: str, notify: Notify) -> None:
        self._settings = settings
        self._service = service
        self._notify = notify
        self._link: Link | None = None
        self._standing = asyncio.Event()
        self._standing.set()
        self._watchers: set[Callable[[], None]] = set()
        self._connected_before = False
        self._announced = False
        self._closed = True
        self._answered_at = time.monotonic()
        self._problem = "the driver isn't entered"
        self.server = Server("")
        """Whom we are, or were last, connected to."""

    @property
    def link(self) -> Link | None:
        """The link that stands now."""
        link = self._link
        return link if link is not None and not link.problem else None

    @property
    def problem(self) -> str | None:
        """What is wrong with the connection; safe to ask from any thread."""
        if self._problem:
            return f"not connected to NATS: {self._problem}"
        silence = time.monotonic() - self._answered_at
        if silence > SILENCE:
            return f"NATS hasn't answered for {silence:.0f} s"
        return None

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever a link was lost or made."""
        self._watchers.add(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Undo `watch`."""
        self._watchers.discard(watcher)

    async def open(self) -> None:
        """Make the first link; waits for a server that can't be reached.

        Raises:
            NotAuthorizedError, CertificateError, SettingsError: Waiting can't mend it.
        """
        self._closed = False
        self._standing.clear()
        self._up(await self._connect(first=True))

    async def run(self) -> None:
        """Replace the link whenever it is lost, until cancelled."""
        while True:
            link = self._link
            assert link is not None, "open() comes before run()"
            await self._guard(link)
            await link.close()
            self._up(await self._connect())

    def release(self) -> None:
        """Let nobody wait for a link any more; the one there is goes on until `close`."""
        self._closed = True
        self._problem = self._problem or "the driver is closed"
        self._standing.set()

    async def close(self) -> None:
        """Send what was written and close; `run` must have ended."""
        self.release()
        if self._link is not None:
            await self._link.close()

    async def link_by(self, deadline: float) -> Link | None:
        """Return a link that stands, None if there is none by ``deadline`` (loop time).

        Nobody waits for a connection that isn't open.
        """
        link = self.link
        if link is None:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._standing.wait()
            link = self.link
        return link if asyncio.get_running_loop().time() < deadline else None

    async def request(self, subject: str, payload: bytes, within: float) -> bytes:
        """Return the answer to a request; empty where nobody listens there.

        Raises:
            NotConnectedError: There is no connection, or it broke meanwhile.
            NotAuthorizedError: The permissions don't cover the subject.
            TimeoutError: No answer.
        """
        check_subject(subject)
        deadline = asyncio.get_running_loop().time() + within
        link = await self.link_by(deadline)
        if link is None:
            raise NotConnectedError(self.problem or "not connected to NATS")
        raw = await link.ask(subject, payload, within=within)
        return b"" if is_no_responders(raw) else raw.data

    async def _guard(self, link: Link) -> None:
        """Return once the link is lost."""
        while not await link.ended(PROBE_EVERY):
            asked = time.monotonic()
            if await link.answers(PROBE_PATIENCE, busy=SILENCE):
                self._answered_at = time.monotonic()
            elif not link.problem:
                busy = time.monotonic() - asked >= SILENCE
                waited = SILENCE if busy else PROBE_PATIENCE
                link.lose(f"{link.server.url} didn't answer for {waited:g} s")

    async def _connect(self, *, first: bool = False) -> Link:
        for failures in count():
            errors: list[EventBusError] = []
            for url, hostname in self._candidates():
                try:
                    return await self._dial(url, hostname)
                except (
                    NotConnectedError,
                    NotAuthorizedError,
                    CertificateError,
                    SettingsError,
                ) as exc:
                    errors.append(exc)
            fatal = [one for one in errors if not isinstance(one, NotConnectedError)]
            if fatal and first:
                raise fatal[0]
            self._down(str((fatal or errors)[0]))
            await asyncio.sleep(pause_after(failures))
        raise AssertionError("unreachable: count() has no end")

    async def _dial(self, url: str, hostname: str | None) -> Link:
        login: Login = login_of(self._settings, self._service)
        if hostname is not None and login.tls_hostname is None:
            login = replace(login, tls_hostname=hostname)
        link = await Link.open(url, login, self._lost)
        wanted = self._settings.cluster_name
        if wanted is not None and link.server.cluster != wanted:
            await link.close()
            found = f"'{link.server.cluster}'" if link.server.cluster else "without a name"
            raise SettingsError(
                f"the cluster at {link.server.url} is {found}, and EVENTBUS_CLUSTER_NAME is "
                f"'{wanted}'; correct the URL or the name"
            )
        return link

    def _candidates(self) -> list[tuple[str, str | None]]:
        """Return the servers in random order, with the name their certificate must carry.

        First those of the settings, then what they told of their cluster.
        """
        given = [url if "://" in url else f"nats://{url}" for url in self._settings.servers]
        random.shuffle(given)
        seed = urlsplit(given[0])
        login = seed.netloc.rpartition("@")[0]
        known = {urlsplit(url).netloc.rpartition("@")[2] for url in given}
        found: list[tuple[str, str | None]] = [(url, None) for url in given]
        for other in self.server.others:
            if other not in known:
                netloc = f"{login}@{other}" if login else other
                url = seed._replace(netloc=netloc).geturl()
                found.append((url, seed.hostname if _is_address(other) else None))
        return found

    def _up(self, link: Link) -> None:
        self._link = link
        if link.problem:
            return
        self.server = link.server
        self._problem = ""
        self._answered_at = time.monotonic()
        self._standing.set()
        signal = Connected(link.server.url, link.server.version, again=self._connected_before)
        self._connected_before = True
        self._announced = False
        self._notify(signal)
        self._tell()

    def _lost(self) -> None:
        """Take the end of a link, at the moment it is noticed."""
        link = self._link
        if link is None or not link.problem or self._closed:
            return
        self._down(link.problem)
        self._tell()

    def _down(self, problem: str) -> None:
        self._problem = problem
        self._standing.clear()
        if not self._announced:
            self._announced = True
            self._notify(Disconnected(problem))

    def _tell(self) -> None:
        for watcher in list(self._watchers):
            watcher()


def _is_address(netloc: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(f"//{netloc}").hostname or "")
    except ValueError:
        return False
    return True
