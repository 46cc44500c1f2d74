"""`JetStreamRoom`: what a janitor asks and does on the server; what to purge is decided elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime

from eventbus.drivers.jetstream.admin import Admin
from eventbus.drivers.jetstream.api import Api, Table, number, table, text, translated
from eventbus.drivers.jetstream.checks import check_headers
from eventbus.drivers.jetstream.connection import Connection
from eventbus.drivers.jetstream.contents import Contents
from eventbus.drivers.jetstream.durables import filters_in, found_durable
from eventbus.drivers.jetstream.position import Position
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.drivers.jetstream.turn import Turn
from eventbus.drivers.room import DurableState, Fill, holders
from eventbus.envelope import Message
from eventbus.errors import BackpressureError, DriverError, EventBusError
from eventbus.headers import parse_time, render_time
from eventbus.settings import Settings

__all__ = ("JetStreamRoom", "state_of")

REMEMBERED = 1.0
"""Seconds for which the names of those that hold the room are kept, so that refused emits don't
become questions."""
ASKED = 1.0
"""Longest wait for those names: a refused emit raises at once."""


class JetStreamRoom:
    """A `Room` on the streams of one namespace."""

    def __init__(
        self,
        api: Api,
        admin: Admin,
        connection: Connection,
        publisher: Publisher,
        settings: Settings,
    ) -> None:
        subjects = settings.subjects
        self._api = api
        self._subjects = subjects
        self._events = Contents(api, subjects.stream)
        self._later = Contents(api, subjects.later_stream)
        self._position = Position(self._events, self._later, admin, publisher, subjects)
        self.max_age = settings.max_age
        """Seconds after which events are gone."""
        self.duplicate_window = settings.duplicate_window
        """Seconds for which a stored event keeps its id from being stored again."""
        self._limit = settings.later_max_bytes
        self._turn = Turn(connection, f"$KV.{subjects.attempts_bucket}.janitor")
        self._pressed = asyncio.Event()
        self._asking = asyncio.Lock()
        self._asked_at = -REMEMBERED
        self._held_by: tuple[str, ...] = ()
        self._waiting: int | None = None
        """Bytes that wait, as far as known; None where nobody looks."""

    async def events(self) -> Fill:
        """Return how full the stream of events is."""
        return _fill(await self._events.info())

    async def later(self) -> Fill:
        """Return how full the stream of what waits is; its limit is that of the settings."""
        fill = _fill(await self._later.info(), self._limit)
        self._waiting = fill.bytes
        return fill

    async def durables(self) -> tuple[DurableState, ...]:
        """Return every durable of the stream of events.

        Raises:
            DriverError: The server can't tell of all; purging what one that it left out hasn't
                read would lose it.
        """
        stream = self._subjects.stream
        with translated(f"durables of stream {stream}"):
            names = {name async for name in self._names(f"CONSUMER.NAMES.{stream}")}
            listed = self._api.items(f"CONSUMER.LIST.{stream}", "consumers")
            found = {text(info.get("name")): info async for info in listed}
        missing = sorted(names - found.keys())
        if missing:
            raise DriverError(
                f"the server says nothing of {', '.join(missing)} now, perhaps it elects a leader"
            )
        return tuple(state_of(info) for info in found.values() if _is_durable(info))

    async def subjects(self) -> tuple[str, ...]:
        """Return the subjects of events that are stored."""
        return await self._stored(self._subjects.event(">"))

    async def retries(self) -> tuple[str, ...]:
        """Return the subjects of retries that are stored; each is one listener's."""
        return await self._stored(self._subjects.retries)

    async def stored_before(self, time: datetime) -> int:
        """Return the sequence below which everything is older than ``time``."""
        message = await self._events.message(start_time=render_time(time), next_by_subj=">")
        if message is None:
            return (await self.events()).last + 1
        return number(message.get("seq"))

    async def oldest_unread(self, durable: DurableState) -> datetime | None:
        """Return when the oldest event that a durable still has to handle was stored."""
        found: list[tuple[int, datetime]] = []
        for one in durable.filters or (">",):
            message = await self._events.message(seq=durable.handled + 1, next_by_subj=one)
            if message is not None:
                time = parse_time(text(message.get("time")))
                found += [(number(message.get("seq")), time)] if time else []
        return min(found)[1] if found else None

    async def settle_position(self) -> int:
        """Remove what has left the stream of what waits, and return what may be purged."""
        return await self._position.settle()

    async def purge(self, subject: str, last: int) -> int:
        """Remove what is stored on one subject at and below a sequence; return how many."""
        assert self._subjects.event_name(subject), f"{subject!r} isn't one event's subject"
        return await self._position.purge(subject, last)

    async def has_marks(self) -> bool:
        """Tell whether an atomic listener's mark is stored."""
        found = await self._events.message(seq=1, next_by_subj=self._subjects.inboxes())
        return found is not None

    async def purge_marks(self, durable: str, last: int) -> int:
        """Remove the marks that a durable's listener left at and below a sequence; tell how many."""
        if not all(durable.partition("__")):  # not one of ours
            return 0
        return await self._events.purge(self._subjects.inboxes(durable), last + 1)

    async def take_turn(self) -> bool:
        """Become, or stay, the one in the cluster that makes room; False where another one is."""
        return await self._turn.take()

    async def pressed(self, within: float) -> bool:
        """Wait until a publish found no room; False where none did ``within`` so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._pressed.wait()
        was = self._pressed.is_set()
        self._pressed.clear()
        return was

    async def explained(self, error: BackpressureError) -> BackpressureError:
        """Return the error with the names of those that hold the room, and wake the janitor."""
        if error.stream != self._subjects.stream:
            return error
        self._pressed.set()
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at >= REMEMBERED:
                self._held_by = await self._holders()
                self._asked_at = asyncio.get_running_loop().time()
        return BackpressureError(stream=error.stream, problem=error.problem, held_by=self._held_by)

    def check_later(self, message: Message) -> None:
        """Refuse to let more wait than the settings allow, as far as that is known.

        Raises:
            BackpressureError: It would be too much.
        """
        if self._waiting is None:
            return
        size = len(message.subject) + len(message.body) + check_headers(message.headers)
        if self._waiting + size > self._limit:
            raise BackpressureError(
                stream=self._subjects.later_stream,
                problem=f"over EVENTBUS_LATER_MAX_BYTES={self._limit}",
            )
        self._waiting += size

    async def _holders(self) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(ASKED):
                return holders(await self.durables())
        except (EventBusError, TimeoutError):
            return ()

    async def _stored(self, kind: str) -> tuple[str, ...]:
        """Return the subjects of a kind that are stored.

        Those that are no event's are left out: as a filter, ``events.*``, which anybody may
        publish to literally, would purge more than itself.
        """
        stored = await self._events.subjects(kind)
        return tuple(one for one in stored if self._subjects.event_name(one) is not None)

    async def _names(self, verb: str) -> AsyncIterator[str]:
        offset = 0
        while True:
            answer = await self._api.call(verb, {"offset": offset})
            page = answer.get("consumers")
            names = page if isinstance(page, list) else []
            for name in names:
                yield text(name)
            offset += len(names)
            if not names or offset >= number(answer.get("total")):
                return


def state_of(info: Table) -> DurableState:
    """Return how far a durable is by its info."""
    return DurableState(
        durable=text(info.get("name")),
        filters=filters_in(found_durable(info)),
        delivered=number(table(info.get("delivered")).get("stream_seq")),
        acknowledged=number(table(info.get("ack_floor")).get("stream_seq")),
        pending=number(info.get("num_pending")),
        unsettled=number(info.get("num_ack_pending")),
        redelivered=number(info.get("num_redelivered")),
        waiting=number(info.get("num_waiting")),
        paused=info.get("paused") is True,
        begin=number(table(info.get("config")).get("opt_start_seq")),
        active=_active(info),
    )


def _active(info: Table) -> datetime | None:
    last = (table(info.get(one)).get("last_active") for one in ("delivered", "ack_floor"))
    times = (parse_time(text(one)) for one in (*last, info.get("created")))
    return max((one for one in times if one is not None), default=None)


def _is_durable(info: Table) -> bool:
    return bool(text(table(info.get("config")).get("durable_name")))


def _fill(info: Table, limit: int | None = None) -> Fill:
    config, state = table(info.get("config")), table(info.get("state"))
    own = number(config.get("max_bytes"))
    messages = number(state.get("messages"))
    return Fill(
        stream=text(config.get("name")),
        messages=messages,
        bytes=number(state.get("bytes")),
        limit=limit or (own if own > 0 else None),
        last=number(state.get("last_seq")),
        oldest=parse_time(text(state.get("first_ts"))) if messages else None,
    )
