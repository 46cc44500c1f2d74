"""`JetStreamDelivery`: one message in our hands; what it says of itself, and how it is settled."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from typing_extensions import override

from eventbus import headers as h
from eventbus.delivery import Arrived
from eventbus.drivers.jetstream.acks import ACK, Acknowledged, Acks
from eventbus.drivers.jetstream.connection import Connection, pause_after
from eventbus.drivers.jetstream.frame import Frame, read_head
from eventbus.drivers.jetstream.link import is_no_responders
from eventbus.drivers.jetstream.peer import Raw
from eventbus.envelope import Message
from eventbus.errors import NotAuthorizedError, NotConnectedError, SettleError
from eventbus.record import quick

__all__ = ("AckSubjects", "JetStreamDelivery", "Lease", "Place", "nak_body", "place_of")

NAK = b"-NAK"
TERM = b"+TERM"
IN_PROGRESS = b"+WPI"

_ACK_PREFIX = "$JS.ACK."
_V1_TOKENS = 9
_V2_TOKENS = 11
"""At least; a random one may follow."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_REASON = 200


@quick
@dataclass(frozen=True, slots=True)
class Place:
    """Where a delivered message is stored, and how often it was delivered."""

    stream: str
    durable: str
    delivered: int
    sequence: int
    number: int
    """Which of the durable's deliveries it is."""
    stored_ns: int


def place_of(reply: str) -> Place | None:
    """Return what an ack subject says, in its first or second form; None if it is none."""
    if not reply.startswith(_ACK_PREFIX):
        return None
    tokens = reply.split(".")
    if len(tokens) >= _V2_TOKENS:  # with domain and account before
        tokens = tokens[2:11]
    if len(tokens) != _V1_TOKENS:
        return None
    try:
        return Place(
            tokens[2],
            tokens[3],
            int(tokens[4]),
            int(tokens[5]),
            int(tokens[6]),
            int(tokens[7]),
        )
    except ValueError:
        return None


class AckSubjects:
    """Reads the ack subjects of one durable as `place_of` does, and what they share only once."""

    def __init__(self, stream: str, durable: str) -> None:
        self._stream = stream
        self._durable = durable
        self._shared = f"{_ACK_PREFIX}{stream}.{durable}"

    def place(self, reply: str) -> Place | None:
        """Return what an ack subject says; None if it is none."""
        words = reply.rsplit(".", 5)
        if len(words) != 6 or words[0] != self._shared:
            return place_of(reply)
        try:
            return Place(
                self._stream,
                self._durable,
                int(words[1]),
                int(words[2]),
                int(words[3]),
                int(words[4]),
            )
        except ValueError:
            return None


def nak_body(delay: float) -> bytes:
    """Return the body of a nak that asks for the next delivery after ``delay`` seconds."""
    if delay <= 0:
        return NAK
    return NAK + b" " + json.dumps({"delay": int(delay * 1e9)}).encode()


@dataclass(frozen=True, slots=True)
class Lease:
    """What all deliveries of a consumer have in common."""

    connection: Connection
    ack_wait: float
    patience: float
    """How long a settlement may wait for the server, at most."""
    per_try: float
    now: Callable[[], float] = time.monotonic
    """That of the event loop, once there is one."""
    acks: Acks | None = None
    """Those of the durable; None until it is known."""


class JetStreamDelivery(Acknowledged):
    """A `Delivery`; the consumer's slot is free again once it is settled.

    Between two signs of life at most an ack wait may pass. After that the server may have handed
    the message to somebody else, and settling it here would settle theirs: then nak and term do
    nothing, and ack raises.
    """

    __slots__ = (
        "_done",
        "_headers",
        "_lease",
        "_lease_end",
        "_message",
        "_release",
        "_settled",
        "_superseded",
        "arrived",
        "deliveries",
        "place",
        "sequence",
        "stream",
    )

    def __init__(
        self,
        raw: Raw,
        reply: str,
        place: Place,
        lease: Lease,
        came: float,
        release: Callable[["JetStreamDelivery", bool], None],
    ) -> None:
        self.place = place
        """Where it is stored."""
        self.stream = place.stream
        self.deliveries = place.delivered
        self.sequence = place.sequence
        self.reply = reply
        self._headers: Mapping[str, str] | None = None
        self.arrived: Arrived
        if isinstance(raw, Frame):
            self.arrived = raw
        else:
            self.arrived = Arrived(raw.subject.encode(), b"", raw.data)
            self._headers = h.lowered(raw.headers or {})
        self._message: Message | None = None
        self._done: Callable[[bool], None] | None = None
        self._lease = lease
        self._lease_end = came + lease.ack_wait
        self._release = release
        self._settled = False
        self._superseded = False

    @property
    def message(self) -> Message:
        """The message, its headers by lower-case name."""
        if self._message is None:
            one = self.arrived
            headers = read_head(one.head) if self._headers is None else self._headers
            subject, id = one.subject_bytes.decode(errors="replace"), headers.get("nats-msg-id")
            self._message = Message(subject, headers, one.data, id)
        return self._message

    @property
    def stored_at(self) -> datetime:
        """When the server stored it, in UTC."""
        return _EPOCH + timedelta(microseconds=self.place.stored_ns // 1000)

    @property
    def lost(self) -> bool:
        """Whether the server may have delivered it again, or has."""
        return self._superseded or self._lease.now() >= self._lease_end

    @property
    def is_settling(self) -> bool:
        """Whether it is settled, or about to be."""
        return self._settled

    async def ack(self) -> None:
        """Tell the server that it is done with, and wait until the server knows.

        Raises:
            SettleError: The server didn't confirm; it will deliver the message again.
        """
        if self._settled:
            return
        self._settled = True
        known = False
        try:
            if self.lost:
                raise SettleError(
                    f"{self._where()} wasn't acknowledged: it isn't ours any more, after "
                    f"{self._lease.ack_wait:g} s without a sign of life, or since the server has "
                    "delivered it again"
                )
            await self._confirmed(ACK)
            known = True
        finally:
            self._release(self, known)

    def ack_soon(self, done: Callable[[bool], None]) -> None:
        """Acknowledge it with the others of this turn of the loop; see `AckedSoon`."""
        acks = self._lease.acks
        if acks is None or self._settled or self.lost:
            done(self._settled)
            return
        self._settled = True
        self._done = done
        acks.add(self)

    @override
    def freed(self) -> None:
        """Give its slot back: the server has the acknowledgement that was sent with others."""
        self._release(self, True)

    @override
    def confirmed(self, known: bool) -> None:
        """Take note whether the server has the acknowledgement that was sent with others."""
        done, self._done = self._done, None
        if not known:
            self._settled = False
        if done is not None:
            done(known)

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back; where the server can't be told, it comes back when its lease runs out.

        It isn't confirmed: repeating a nak could start a second delivery beside a newer one.
        """
        if self._settled:
            return
        self._settled = True
        try:
            if not self.lost:
                await self._write(nak_body(delay))
        finally:
            self._release(self, False)

    async def term(self, reason: str) -> None:
        """Tell the server never to deliver it again, and wait until the server knows.

        Raises:
            SettleError: The server didn't confirm; it will deliver the message again.
        """
        if self._settled:
            return
        self._settled = True
        known = False
        try:
            if not self.lost:
                words = " ".join(reason.split())[:_LONGEST_REASON]
                await self._confirmed(f"{TERM.decode()} {words}".rstrip().encode())
                known = True
        finally:
            self._release(self, known)

    async def in_progress(self) -> None:
        """Start its ack wait anew; never raises, a lost heartbeat is the next one's work."""
        if self._settled or self.lost:
            return
        written = self._lease.now()
        if await self._write(IN_PROGRESS):
            self._lease_end = written + self._lease.ack_wait

    def supersede(self) -> None:
        """Take note that the server has delivered the same message again."""
        self._superseded = True

    def _where(self) -> str:
        return f"'{self.message.subject}' {self.stream}:{self.sequence}"

    async def _write(self, body: bytes) -> bool:
        link = self._lease.connection.link
        if link is None:
            return False
        try:
            link.send(self.reply, body)
        except NotConnectedError:
            return False
        return True

    async def _confirmed(self, body: bytes) -> None:
        """Repeat an ack or term until the server answers; while the lease holds it is ours."""
        deadline = min(self._lease_end, self._lease.now() + self._lease.patience)
        problem = self._lease.connection.problem or "no connection"
        tries = 0
        while (link := await self._lease.connection.link_by(deadline)) is not None:
            within = min(self._lease.per_try, deadline - self._lease.now())
            try:
                raw = await link.ask(self.reply, body, within=within)
            except NotConnectedError as exc:
                problem = str(exc)
                continue
            except TimeoutError:
                problem = f"no answer for {within:.1f} s"
                continue
            except NotAuthorizedError as exc:
                raise SettleError(f"{self._where()} can't be settled: {exc}") from exc
            if not is_no_responders(raw):
                return
            problem = f"durable {self.place.durable} isn't there"
            tries += 1
            await asyncio.sleep(min(pause_after(tries), within))
        raise SettleError(
            f"{self._where()} wasn't settled: {problem}; the server delivers it again"
        )
