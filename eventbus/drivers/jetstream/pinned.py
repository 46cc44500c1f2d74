"""`PinnedConsumer`: one process at a time works the durable, and takes over without a gap in order.

The server pins the durable to the client that it gives the first message to (a priority group;
nats-py knows none), until that client hasn't pulled for a while. The events that the one before
had in hand come back only when their lease runs out, and newer ones come before them. So whoever
is pinned begins halted, and goes on once everything unsettled on the server is in its own hands
(`eventbus.drivers.jetstream.takeover` tells when).
"""

import asyncio
from contextlib import suppress

from typing_extensions import override

from eventbus.drivers.base import ConsumerSpec, InOrder
from eventbus.drivers.jetstream.api import ApiError, Table, number, rows, table, text
from eventbus.drivers.jetstream.consumer import Outside, PullConsumer
from eventbus.drivers.jetstream.durables import GROUP, pin_timeout
from eventbus.drivers.jetstream.message import JetStreamDelivery, place_of
from eventbus.drivers.jetstream.peer import Raw
from eventbus.drivers.jetstream.takeover import Look, Next, Takeover
from eventbus.errors import DriverError, NotAuthorizedError, NotConnectedError

__all__ = ("PinnedConsumer",)

PIN = "Nats-Pin-Id"
LOOK_EVERY = 0.2
LOOK_UP = 2.0
UNPIN_PATIENCE = 0.5
KEEP = "keep"
"""What stands instead of a number in the reply subject of a request that only keeps the pin."""


class PinnedConsumer(PullConsumer):
    """One contender for an ordered durable.

    All that is unsettled at the server is in the hands of the pinned process while its taker goes
    on. That is looked at whenever it may have ended: the pin changed, a lease ran out, or nobody
    knows whether a settlement arrived.
    """

    def __init__(self, spec: ConsumerSpec, taker: InOrder, outside: Outside) -> None:
        super().__init__(spec, taker.take, outside)
        self._taker = taker
        self._name = f"{outside.stream}.{spec.durable}"
        self._keep_every = pin_timeout(spec) / 4
        self._most = spec.slots
        self._pin = ""
        self._pulled_at = 0.0
        self._is_open = False
        self._takeover = Takeover()
        self._number = 0
        self._era = 0
        self._settlements = 0
        self._lost: set[JetStreamDelivery] = set()
        self._obstacle = ""
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @override
    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin, in tasks of ``group``."""
        super().start(group)
        self._tasks = [group.create_task(one) for one in (self._keep_pin(), self._keep_order())]

    @override
    async def stop(self) -> None:
        """Ask for no more, and let another process have its turn at once.

        What still arrives is taken: its taker hands it back as it does the rest.
        """
        if self._stopping:
            return
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await super().stop()
        if self._pin:
            with suppress(ApiError, DriverError, TimeoutError):
                verb = f"CONSUMER.UNPIN.{self._name}"
                await self._outside.api.call(verb, {"group": GROUP}, timeout=UNPIN_PATIENCE)

    @property
    @override
    def problem(self) -> str | None:
        """What keeps it from pulling, or from keeping order; safe to ask from any thread."""
        if self._obstacle and not self._stopping:
            return f"consumer {self._spec.durable}: {self._obstacle}"
        return super().problem

    # Pulling.

    @override
    def _asked(self, count: int) -> bytes:
        return super()._asked(count)[:-1] + self._membership()

    def _membership(self) -> bytes:
        """Return the end of a request's body: for which group it is, and under which pin."""
        if not self._pin:
            return b',"group":"%b"}' % GROUP.encode()
        self._pulled_at = self._loop.time()
        return b',"group":"%b","id":"%b"}' % (GROUP.encode(), self._pin.encode())

    @override
    def _free(self) -> int:
        if not self._slots:
            return 0
        if not self._is_open and not self._takeover.has_looked:
            # One brings the pin; what comes before the first look has to come once more.
            return 0 if self._pin else 1 - self._requested
        # Not by what is taken: of an event that came again, the older delivery isn't settled.
        return self._most - len(self._held) - self._requested

    @override
    def _has_room(self) -> bool:
        # Given back, it would come behind a later one of its key. The server's limit of what is
        # unsettled bounds it.
        return True

    async def _keep_pin(self) -> None:
        """Pull in time to stay pinned, also where there is no slot for another event.

        A request for one byte at most is never given an event.
        """
        while True:
            link = self._outside.connection.link
            is_due = self._loop.time() - self._pulled_at >= self._keep_every
            if self._pin and is_due and link is not None:
                body = b'{"batch":1,"max_bytes":1,"expires":%d' % int(self._keep_every * 1e9)
                reply = f"{self._inbox}.{self._epoch}.{KEEP}"
                with suppress(NotConnectedError):
                    link.send(self._pull, body + self._membership(), reply)
            await asyncio.sleep(self._keep_every / 2)

    @override
    def _take_message(self, raw: Raw, reply: str) -> None:
        pin = raw.headers.get(PIN, "") if raw.headers is not None else ""
        if not pin:
            self._obstacle = "its durable has no priority group any more; was it changed by hand?"
        place = place_of(raw.reply)
        if place is None:
            return
        if pin != self._pin:
            self._pin = pin
            self._close(first=place.number)
        elif self._is_open and place.number != self._number + 1:
            self._close()  # a delivery was lost with the connection; it comes back after others
        self._number = place.number
        if not self._is_open:
            self._takeover.took(place.sequence, place.number, again=place.delivered > 1)
        super()._take_message(raw, reply)

    @override
    def _take_status(self, raw: Raw, code: str) -> None:
        epoch, _, what = raw.subject.rpartition(".")
        if code == "423":
            if epoch.endswith(f".{self._epoch}"):
                self._lose_pin()
        elif what != KEEP or code == "503":
            super()._take_status(raw, code)

    @override
    def _refused(self, code: str, description: str) -> None:
        super()._refused(code, description)
        if self._absent:
            self._lose_pin()

    def _lose_pin(self) -> None:
        """Another process has it, or nobody: ask again like all the others."""
        self._pin = ""
        self._forget_requests()
        self._close()
        self._wake.set()

    # Keeping order.

    async def _keep_order(self) -> None:
        while True:
            self._notice_lost()
            if not self._is_open:
                await self._try_to_open()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._hurry.wait()
            self._hurry.clear()

    async def _try_to_open(self) -> None:
        era, settlements = self._era, self._settlements
        await self._taker.hand_back()
        info = await self._look_up() if self._pin else None
        if info is None or self._pin not in _pins(info) or era != self._era:
            return
        if settlements != self._settlements or any(one.is_settling for one in self._mine()):
            return  # does the server count it or not?
        looked = self._takeover.has_looked
        held = [one.sequence for one in self._mine()]
        match self._takeover.judge(_look(info), held):
            case Next.GO_ON:
                self._is_open = True
                self._taker.resume()
            case Next.HAND_BACK:
                self._taker.halt()
                self._hurry.set()
            case Next.WAIT:
                pass
        if self._takeover.has_looked != looked:
            self._wake.set()

    def _close(self, first: int | None = None) -> None:
        self._era += 1
        self._is_open = False
        self._takeover.begin(first)
        self._taker.halt()
        self._hurry.set()

    def _mine(self) -> list[JetStreamDelivery]:
        return [one for one in self._held.values() if not one.lost]

    def _notice_lost(self) -> None:
        """Look anew once a lease has run out: that event comes back, perhaps to somebody else."""
        lost = {one for one in self._held.values() if one.lost}
        if not lost <= self._lost:
            self._close()
        self._lost = lost

    @override
    def _release(self, delivery: JetStreamDelivery, known: bool) -> None:
        is_newest = self._held.get(delivery.sequence) is delivery
        super()._release(delivery, known)
        self._settlements += 1
        if known and not self._is_open:
            self._takeover.settled()
        if self._is_open and is_newest and not known and not self._stopping:
            # Nobody knows whether it is settled; if not, it comes back, and before later ones.
            self._close()

    async def _look_up(self) -> Table | None:
        """Ask how the durable is; None where nobody says."""
        try:
            info = await self._outside.api.call(f"CONSUMER.INFO.{self._name}", timeout=LOOK_UP)
        except NotAuthorizedError as exc:
            self._obstacle = f"can't know whether it is its turn: {exc}"
            return None
        except (ApiError, DriverError, TimeoutError):
            return None
        self._obstacle = ""
        most = number(table(info.get("config")).get("max_ack_pending"))
        self._most = max(self._spec.slots, most)
        return info


def _look(info: Table) -> Look:
    delivered, floor = table(info.get("delivered")), table(info.get("ack_floor"))
    return Look(
        unsettled=number(info.get("num_ack_pending")),
        handed_out=number(delivered.get("consumer_seq")),
        newest=number(delivered.get("stream_seq")),
        floor=number(floor.get("consumer_seq")),
    )


def _pins(info: Table) -> tuple[str, ...]:
    return tuple(text(one.get("pinned_client_id")) for one in rows(info.get("priority_groups")))
