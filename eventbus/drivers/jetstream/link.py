"""`Link`: one connection with one reply inbox, the answers that are waited for, their deadlines."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, Self

from eventbus.drivers.jetstream.credentials import Login
from eventbus.drivers.jetstream.frame import Frame, publish_command
from eventbus.drivers.jetstream.peer import Raw, Server, Subscription
from eventbus.drivers.jetstream.wire import Wire, dial
from eventbus.errors import NotAuthorizedError, NotConnectedError

if TYPE_CHECKING:
    from eventbus.drivers.jetstream.lane import Lane

__all__ = ("Link", "LostError", "is_no_responders", "is_status")

_log: Final = logging.getLogger(__name__)

GRAIN: Final = 0.05
"""Deadlines are kept to this many seconds, so that one timer serves all."""
MAX_DENIED: Final = 256
MAX_WAITING = 4096
"""Answers waited for at once; beyond, the server is behind, and more requests only cost memory."""


class LostError(NotConnectedError):
    """The connection broke after the message was written: nobody knows whether it arrived."""


def is_status(raw: Raw, code: str) -> bool:
    """Tell whether a message is the server's status ``code``, and not somebody's message."""
    return not raw.data and raw.headers is not None and raw.headers.get("Status") == code


def is_no_responders(raw: Raw) -> bool:
    """Tell whether an answer says that nobody listens on that subject."""
    return is_status(raw, "503")


class _Call:
    """What is called with an answer, and looks like a future to who has it."""

    __slots__ = ("_told",)

    def __init__(self, told: Callable[[Raw | None], None]) -> None:
        self._told = told

    def done(self) -> bool:
        """Return that it isn't; nobody can cancel it."""
        return False

    def set_result(self, raw: Raw | None) -> None:
        """Hand over the answer."""
        try:
            self._told(raw)
        except Exception:  # noqa: BLE001 - those who wait for other answers go on
            _log.exception("what takes an answer failed")

    def set_exception(self, _: Exception) -> None:
        """Tell that there is none."""
        self.set_result(None)


class Link:
    """One connection, from `open` until it is lost; a lost one never comes back."""

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        """The time by which deadlines are kept."""
        self._on_lost = on_lost
        self._wire: Wire | None = None
        self._lane: Lane | None = None
        self._prefix = ""
        self._count = 0
        self._waiting: dict[bytes, tuple[asyncio.Future[Raw] | _Call, float, str]] = {}
        self._queue: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._denied: dict[str, None] = {}
        self._ended = asyncio.Event()
        self.problem = ""
        """Why it is lost; empty while it stands."""

    @classmethod
    async def open(cls, url: str, login: Login, on_lost: Callable[[], None]) -> Self:
        """Connect to one server and listen for answers.

        Raises:
            NotAuthorizedError: Credentials, or no permission to receive answers.
            CertificateError, NotConnectedError: As `dial`.
        """
        link = cls(on_lost)
        link._wire = await dial(url, login, on_denied=link._refused, on_lost=link.lose)
        link._lane = link._wire.lane
        problem = await _problem_of(link._listen(login.inbox_prefix))
        if problem is not None:
            await link.close()
            raise problem
        return link

    async def _listen(self, inbox_prefix: str) -> None:
        self._prefix = f"{self.wire.new_inbox()}."
        await self.wire.listen(self._prefix, self._answered, self._answered_plainly)
        await self.wire.flush()
        if self.is_denied(f"{self._prefix}*"):
            raise NotAuthorizedError(f"{self.problem} ('{inbox_prefix}.>')")

    @property
    def wire(self) -> Wire:
        """The connection below."""
        assert self._wire is not None, "a link is made by open()"
        return self._wire

    @property
    def server(self) -> Server:
        """Whom it connects to."""
        return self.wire.server

    def ask(
        self,
        subject: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        *,
        within: float,
    ) -> "asyncio.Future[Raw]":
        """Send a message now, and return the answer to await, which may be a status.

        Cancelling that leaves open whether the message was stored. ``id`` is what the server
        deduplicates by. Awaiting the answer raises LostError (it was sent, and the connection
        broke), NotAuthorizedError (the permissions don't cover the subject), and TimeoutError (no
        answer ``within`` so many seconds).

        Raises:
            NotConnectedError: Nothing was sent.
        """
        return self.ask_by(self.now() + within, subject, body, headers, id)

    def ask_by(
        self,
        deadline: float,
        subject: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> "asyncio.Future[Raw]":
        """Ask as `ask` does, with no answer after a time of `now`."""
        self._count = number = self._count + 1
        token = str(number)
        reply = self._prefix + token
        if self._lane is not None and not self.problem:  # as `send`, once for each event
            self._lane.write(publish_command(subject, reply, body, headers, id))
        else:
            self.send(subject, body, reply, headers, id)
        future: asyncio.Future[Raw] = asyncio.Future(loop=self._loop)
        self._waiting[token.encode()] = future, deadline, subject
        if self._timer is None:
            self._timer = self._loop.call_later(GRAIN, self._sweep)
        return future

    def tell(
        self, subject: str, body: bytes, told: Callable[[Raw | None], None], *, within: float
    ) -> None:
        """Send a message now, and call ``told`` with the answer; None where none came.

        It is called while the socket is read, so it must not raise.

        Raises:
            NotConnectedError: Nothing was sent, and ``told`` isn't called.
        """
        self._count = number = self._count + 1
        self.send(subject, body, f"{self._prefix}{number}")
        self._waiting[b"%d" % number] = _Call(told), self.now() + within, subject
        if self._timer is None:
            self._timer = self._loop.call_later(GRAIN, self._sweep)

    def send(
        self,
        subject: str,
        body: bytes,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
    ) -> None:
        """Write a message, without an answer.

        Raises:
            NotConnectedError: Nothing was sent.
        """
        if self.problem:
            raise NotConnectedError(self.problem)
        try:
            self.wire.send(subject, body, reply, headers, id)
        except NotConnectedError as exc:
            self.lose(str(exc))
            raise

    def post(self, subjects: Sequence[str], body: bytes) -> None:
        """Write one body, in ASCII, to many subjects, without an answer.

        Raises:
            NotConnectedError: Perhaps not all was sent.
        """
        if self._lane is None or self.problem:
            for subject in subjects:
                self.send(subject, body)
            return
        end = f"  {len(body)}\r\n{body.decode()}\r\n"
        self._lane.write("".join([f"PUB {one}{end}" for one in subjects]).encode())

    def flush(self) -> None:
        """Let what was written leave now, and not at the end of this turn of the loop."""
        if self._lane is not None:
            self._lane.flush()

    @property
    def is_crowded(self) -> bool:
        """Whether a request that can wait had better wait for `room`."""
        line = self._lane or self.wire
        return len(self._waiting) >= MAX_WAITING or bool(self._queue) or line.is_full

    async def room(self) -> None:
        """Wait for one's turn to send: for answers to earlier requests, and for the socket.

        Raises:
            NotConnectedError: The connection was lost meanwhile.
        """
        if not self.is_crowded:
            return
        turn: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(turn)
        if self._timer is None:
            self._timer = self._loop.call_later(GRAIN, self._sweep)
        await turn
        if self.problem:
            raise NotConnectedError(self.problem)

    def _admit(self) -> None:
        """Let as many send as there is room for, in their order."""
        places = 0 if self.wire.is_full else MAX_WAITING - len(self._waiting)
        while self._queue and places > 0:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                places -= 1

    async def subscribe(
        self, subject: str, take: Callable[[Raw], None], queue: str = ""
    ) -> Subscription:
        """Hand every message on a subject to ``take``; with a queue, one of its group gets each.

        Raises:
            NotConnectedError: The connection is gone.
        """
        return await self.wire.subscribe(subject, take, queue)

    def new_inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return self.wire.new_inbox()

    def is_denied(self, subject: str) -> bool:
        """Tell whether the server has said that the permissions don't cover a subject."""
        return subject.lower() in self._denied

    async def ended(self, within: float) -> bool:
        """Wait until it is lost; False if it still stands after ``within`` seconds."""
        try:
            async with asyncio.timeout(within):
                await self._ended.wait()
        except TimeoutError:
            return False
        return True

    async def answers(self, within: float, *, busy: float) -> bool:
        """Tell whether the server answers in time; it finds a dead read loop too (T11, T12).

        While other things come in, its answer may stand behind them, for ``busy`` seconds.
        """
        async with asyncio.TaskGroup() as group:
            ping = group.create_task(self.wire.answers())
            ended = group.create_task(self._ended.wait())
            answered = group.create_task(self._is_answered(ping, ended, within, busy))
        return answered.result()

    async def _is_answered(
        self,
        ping: asyncio.Task[bool],
        ended: asyncio.Task[Literal[True]],
        within: float,
        busy: float,
    ) -> bool:
        latest = self.now() + busy
        done: set[asyncio.Task[bool]] = set()
        while not done and self.now() < latest:
            heard = self.wire.heard
            done, _ = await asyncio.wait(
                (ping, ended), timeout=within, return_when=asyncio.FIRST_COMPLETED
            )
            if heard == self.wire.heard:
                break
        if not ping.done():
            # An event loop that was blocked finds timer and answer due at the same time.
            await asyncio.wait((ping,), timeout=GRAIN)
        answered = ping.done() and ping.result()
        ping.cancel()
        ended.cancel()
        return answered

    def lose(self, problem: str) -> None:
        """Give it up: fail everything that waits, at once."""
        if self.problem:
            return
        self.problem = problem or "the connection was lost"
        self._ended.set()
        waiting, self._waiting = self._waiting, {}
        for future, _, _ in waiting.values():
            if not future.done():
                future.set_exception(LostError(self.problem))
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
        self._on_lost()

    async def close(self) -> None:
        """Close the connection, whether it stands or is lost."""
        self.lose("the connection was closed")
        if self._timer is not None:
            self._timer.cancel()
        await self.wire.close()

    def _answered(self, raw: Raw) -> None:
        entry = self._waiting.pop(raw.subject[len(self._prefix) :].encode(), None)
        if entry is not None and not entry[0].done():
            entry[0].set_result(raw)
        if self._queue:
            self._admit()

    def _answered_plainly(self, token: bytes, answer: Frame) -> None:
        """Take an answer without headers; one for every event, so it is kept short."""
        entry = self._waiting.pop(token, None)
        if entry is not None and not entry[0].done():
            entry[0].set_result(answer)
        if self._queue:
            self._admit()

    def _refused(self, operation: str, subject: str) -> None:
        """Take a permission violation; it names no request, only the subject in lower case."""
        if len(self._denied) >= MAX_DENIED:
            del self._denied[next(iter(self._denied))]
        self._denied[subject] = None
        if operation == "subscription":
            if subject == f"{self._prefix}*".lower():
                self.lose(f"{self.server.url} doesn't let us subscribe to our inbox")
            return
        for token, (future, _, wanted) in list(self._waiting.items()):
            if wanted.lower() == subject:
                del self._waiting[token]
                if not future.done():
                    future.set_exception(_not_authorized(self.server.url, wanted))

    def _sweep(self) -> None:
        """Let those end whose deadline has passed; one timer serves all."""
        now = self._loop.time()
        late = [token for token, entry in self._waiting.items() if entry[1] <= now]
        for token in late:
            future = self._waiting.pop(token)[0]
            if not future.done():
                future.set_exception(TimeoutError())
        if self._queue:
            self._admit()
        busy = self._waiting or self._queue
        self._timer = self._loop.call_later(GRAIN, self._sweep) if busy else None


async def _problem_of(work: Awaitable[None]) -> BaseException | None:
    try:
        await work
    except BaseException as exc:  # noqa: BLE001 - it is raised once the link is closed
        return exc
    return None


def _not_authorized(server: str, subject: str) -> NotAuthorizedError:
    return NotAuthorizedError(
        f"{server} doesn't let us publish to '{subject}'; permit it for this user"
    )
