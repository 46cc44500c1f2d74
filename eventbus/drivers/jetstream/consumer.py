"""`PullConsumer`: keeps as many deliveries coming as there are free slots, through every fault.

nats-py's ``fetch`` loses statuses and requests (T2 to T5). Here each pull request carries its
number and size in its reply subject, idle heartbeats show that it is alive, and each status of
the server is acted on.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from eventbus.clock import time_of
from eventbus.drivers.base import ConsumerRecovered, ConsumerSpec, Deliver, Notify
from eventbus.drivers.jetstream.acks import ACK, MANY, Acks
from eventbus.drivers.jetstream.api import (
    CONSUMER_NOT_FOUND,
    STREAM_NOT_FOUND,
    Api,
    ApiError,
    Table,
)
from eventbus.drivers.jetstream.connection import Connection, pause_after
from eventbus.drivers.jetstream.frame import reply_of
from eventbus.drivers.jetstream.link import Link
from eventbus.drivers.jetstream.message import NAK, AckSubjects, JetStreamDelivery, Lease
from eventbus.drivers.jetstream.peer import Raw, Subscription
from eventbus.drivers.jetstream.progress import Progress
from eventbus.drivers.jetstream.topology import Topology
from eventbus.drivers.jetstream.trouble import Trouble
from eventbus.errors import DriverError, EventBusError, NotConnectedError, TopologyError

__all__ = ("Outside", "PullConsumer")

HEARTBEAT = 2.0
SILENCE = 2.5 * HEARTBEAT
"""Pull requests of which nothing is heard for so long are lost."""
EXPIRES = 30.0
LOOK_EVERY = 5.0
LOOK_AGAIN = 1.0
DRAIN_PATIENCE = 0.5
ABSENCES = 3
"""After so many pulls that nobody took, we ask whether the durable is still there."""

_DELETED = "consumer deleted"
_MOVED = ("leadership change", "server shutdown")
_COMPLETE = ("batch completed", "message size exceeds maxbytes")


@dataclass(frozen=True, slots=True)
class Outside:
    """What the consumers of a driver work with."""

    connection: Connection
    api: Api
    topology: Topology
    notify: Notify
    stream: str
    lease: Lease
    recreates: bool
    """Whether a durable that somebody deleted may be created again."""


class PullConsumer:
    """One consumer of one durable."""

    def __init__(self, spec: ConsumerSpec, deliver: Deliver, outside: Outside) -> None:
        self._spec = spec
        self._deliver = deliver
        self._outside = outside
        self._loop = asyncio.get_running_loop()
        acks = Acks(outside.connection, outside.lease.per_try, self._request_now)
        self._now = time_of(self._loop)
        self._lease = replace(outside.lease, ack_wait=spec.ack_wait, now=self._now, acks=acks)
        self._released = self._release
        self._progress = Progress(outside.stream, spec.durable)
        self._pull = f"$JS.API.CONSUMER.MSG.NEXT.{outside.stream}.{spec.durable}"
        self._ack_subjects = AckSubjects(outside.stream, spec.durable)
        self._slots = spec.slots
        self._step = max(1, spec.slots // 4)
        self._trouble = Trouble()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._stopping = False
        self._held: dict[int, JetStreamDelivery] = {}
        self._taken = 0
        self._answers: list[tuple[str, bytes]] = []
        self._epoch = 0
        self._requested = 0
        self._is_requesting = False
        self._served: Link | None = None
        """Whose requests are answered to us."""
        self._heard_at = 0.0
        self._is_heard = False
        """Whether the server answers to the requests there are."""
        self._resume_at = 0.0
        self._failures = 0
        self._absent = False
        self._changed = ""

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin, in a task of ``group``."""
        self._task = group.create_task(self._run())

    def limit(self, slots: int) -> None:
        """Take no more than so many at once from now on, 0 for none; what is in hand stays."""
        self._slots = slots
        self._wake.set()

    async def stop(self) -> None:
        """Ask for no more; what still arrives goes back to the server at once."""
        if self._stopping:
            return
        self._stopping = True
        if self._subscription is not None:
            # The server hears of this before the naks, and so gives nothing back to us.
            await self._subscription.drain(DRAIN_PATIENCE)
        link = self._outside.connection.link
        if link is not None:
            await self._answer(link)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def problem(self) -> str | None:
        """What keeps it from pulling, once that lasts; safe to ask from any thread."""
        problem = "" if self._stopping else self._trouble.lasting or self._changed
        return f"consumer {self._spec.durable}: {problem}" if problem else None

    async def _run(self) -> None:
        self._outside.connection.watch(self._wake.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._look())
                group.create_task(self._serve_links())
        finally:
            self._outside.connection.unwatch(self._wake.set)

    async def _serve_links(self) -> None:
        while True:
            link = self._outside.connection.link
            if link is not None:
                with suppress(NotConnectedError):
                    await self._serve(link)
            else:
                await self._pause(HEARTBEAT)

    async def _look(self) -> None:
        """Keep up with how far the durable is, and whether it still is what was declared."""
        while self._outside.recreates:
            if self._outside.connection.link is not None:
                with suppress(ApiError, DriverError, TimeoutError):
                    async with self._outside.topology.turn():
                        await self._inspect()
            await asyncio.sleep(LOOK_EVERY if self._progress.known else LOOK_AGAIN)

    async def _inspect(self) -> None:
        topology = self._outside.topology
        info: Table | None = None
        if self._progress.moved:
            narrowed = partial(topology.is_narrowed, self._spec)
            info = await self._progress.look(self._outside.api, narrowed)
        if not self._progress.known:
            return
        try:
            await topology.mend_consumer(self._spec, info)
        except TopologyError as exc:
            self._changed = str(exc)
        else:
            self._changed = ""

    async def _serve(self, link: Link) -> None:
        """Pull over one link until it is lost.

        Raises:
            NotConnectedError: It was lost.
        """
        self._inbox = link.new_inbox()
        self._forget_requests()
        self._subscription = await link.subscribe(f"{self._inbox}.*.*", self._take)
        self._served = link
        while not link.problem:
            await self._answer(link)
            now = self._loop.time()
            self._check(link, now)
            if now >= self._resume_at and (not self._absent or await self._recover()):
                self._request(link)
            await self._pause(self._rest(self._loop.time()))

    def _rest(self, now: float) -> float:
        """Return after how many seconds to look again, where nothing happens before.

        Where the requests are alive, that is when they would count as lost: with many listeners,
        those that only wait cost little.
        """
        if self._resume_at > now:
            return self._resume_at - now
        if self._trouble or not (self._requested and self._is_heard):
            return HEARTBEAT / 2
        return max(HEARTBEAT / 2, self._heard_at + SILENCE - now)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _request_soon(self) -> None:
        """Ask for more in the next turn of the loop, once all is known that this one settles."""
        if not self._is_requesting and self._is_worth_asking(self._free()):
            self._is_requesting = True
            self._loop.call_soon(self._request_now)

    def _request_now(self) -> None:
        """Ask for more, where nothing is in the way; else that is for `_serve` to see to."""
        self._is_requesting = False
        link = self._outside.connection.link
        is_well = not self._absent and self._loop.time() >= self._resume_at
        if is_well and link is not None and link is self._served:
            with suppress(NotConnectedError):
                self._request(link)
                return
        self._wake.set()

    def _request(self, link: Link) -> None:
        free = self._free()
        if self._stopping or not self._is_worth_asking(free):
            return
        if not self._requested:
            self._heard_at = self._loop.time()
        self._requested += free
        link.send(self._pull, self._asked(free), f"{self._inbox}.{self._epoch}.{free}")
        if free >= MANY:
            link.flush()

    def _asked(self, count: int) -> bytes:
        """Return the body of a pull request for so many deliveries."""
        return b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
            count,
            EXPIRES * 1e9,
            HEARTBEAT * 1e9,
        )

    def _free(self) -> int:
        return self._slots - self._taken - self._requested

    def _is_worth_asking(self, free: int) -> bool:
        """Save requests while enough are under way, and never leave a free slot without one."""
        return free > 0 and (free >= self._step or not self._requested)

    def _check(self, link: Link, now: float) -> None:
        if self._requested and now - self._heard_at > SILENCE:
            self._trouble.begin(f"no heartbeat for {SILENCE:g} s")
            self._forget_requests()
            self._absent = True
        if link.is_denied(self._pull):
            self._trouble.begin(f"{link.server.url} doesn't let us publish to '{self._pull}'")

    def _forget_requests(self) -> None:
        """Expect nothing more of the requests made so far; their statuses mean nothing now."""
        self._epoch += 1
        self._requested = 0
        self._is_heard = False

    async def _answer(self, link: Link) -> None:
        """Send what `_take` couldn't: it is called from the read loop and must not wait."""
        while self._answers:
            reply, body = self._answers.pop()
            link.send(reply, body)

    def _take(self, raw: Raw) -> None:
        self._heard_at = self._now()
        self._is_heard = True
        if reply := reply_of(raw):
            self._take_message(raw, reply)
        elif code := (raw.headers or {}).get("Status"):
            self._take_status(raw, code)

    def _take_message(self, raw: Raw, reply: str) -> None:
        place = self._ack_subjects.place(reply)
        if place is None:
            return
        if self._trouble or self._failures:
            self._is_well()
        if self._requested:
            self._requested -= 1
        if self._progress.is_done(place):
            self._send(reply, ACK)
        elif not self._has_room():
            self._send(reply, NAK)
        else:
            delivery = JetStreamDelivery(
                raw, reply, place, self._lease, self._heard_at, self._released
            )
            older = self._held.get(place.sequence)
            if older is not None:
                older.supersede()
            self._held[place.sequence] = delivery
            self._taken += 1
            self._deliver(delivery)
        if not self._requested:
            self._request_soon()

    def _has_room(self) -> bool:
        """Tell whether another delivery may be taken.

        More than the slots come where requests thought lost are answered after all.
        """
        return not self._stopping and self._taken < self._slots

    def _send(self, reply: str, body: bytes) -> None:
        self._answers.append((reply, body))
        self._wake.set()

    def _release(self, delivery: JetStreamDelivery, known: bool) -> None:
        """Take a slot back; ``known`` says that the server has taken the ack or term."""
        self._taken -= 1
        if self._held.get(delivery.sequence) is delivery:
            del self._held[delivery.sequence]
        if known and self._outside.recreates:
            self._progress.settled(delivery.place)
        self._request_soon()

    def _take_status(self, raw: Raw, code: str) -> None:
        assert raw.headers is not None, "a status is a header"
        epoch, _, batch = raw.subject.rpartition(".")
        if not epoch.endswith(f".{self._epoch}"):
            return
        if code == "100":
            self._is_well()
            return
        left = raw.headers.get("Nats-Pending-Messages", batch)
        self._requested = max(0, self._requested - (int(left) if left.isdecimal() else 0))
        description = raw.headers.get("Description", "").strip()
        self._wake.set()
        if code in ("404", "408"):
            self._is_well()
        elif code == "503":
            self._failed("nobody takes its pull requests")
            self._absent = self._failures >= ABSENCES
        elif description.lower() not in _COMPLETE:
            self._refused(code, description)

    def _refused(self, code: str, description: str) -> None:
        words = description.lower()
        if words == _DELETED:
            self._trouble.begin("its durable was deleted")
            self._forget_requests()
            self._absent = True
        elif words in _MOVED:
            self._failed(words)
            self._forget_requests()
        else:
            self._failed(f"the server refuses its pull requests ({code} {description})")

    def _failed(self, problem: str) -> None:
        self._trouble.begin(problem)
        self._resume_at = self._loop.time() + pause_after(self._failures)
        self._failures += 1

    def _is_well(self) -> None:
        self._failures = 0
        problem = self._trouble.end()
        if problem:
            self._outside.notify(ConsumerRecovered(self._spec.durable, problem))

    async def _recover(self) -> bool:
        """Create the durable again if it isn't there; False if that failed."""
        if not await self._exists():
            after = self._progress.after
            try:
                await self._outside.topology.recreate_consumer(self._spec, after)
            except (EventBusError, TimeoutError) as exc:
                self._failed(f"its durable was deleted; {exc}")
                return False
            self._progress.recreated()
            self._trouble.begin(f"its durable was deleted; created again after sequence {after}")
        self._absent = False
        return True

    async def _exists(self) -> bool:
        """Ask; True where nobody can tell."""
        name = f"{self._outside.stream}.{self._spec.durable}"
        try:
            await self._outside.api.call(f"CONSUMER.INFO.{name}")
        except ApiError as exc:
            return exc.err_code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND)
        except (DriverError, TimeoutError):
            return True
        return True
