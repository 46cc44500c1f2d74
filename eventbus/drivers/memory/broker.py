"""`MemoryBroker`: streams, durables, schedules and attempts that drivers of one process share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from eventbus import headers as h
from eventbus.clock import Clock, SystemClock
from eventbus.drivers.asking import LocalAsking
from eventbus.drivers.atomic import Mark, check_same
from eventbus.drivers.base import HEADROOM, ConsumerSpec, Receipt, Start
from eventbus.drivers.memory.durable import Durable
from eventbus.drivers.memory.later import Later
from eventbus.drivers.memory.logs import MemoryParked
from eventbus.drivers.memory.stream import Stored, Stream, header_bytes, put_in
from eventbus.drivers.plain import LocalAttempts
from eventbus.drivers.room import holders
from eventbus.drivers.timers import Action, Timers
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    NoStreamError,
    PayloadTooLargeError,
    SequenceConflictError,
    TopologyError,
)
from eventbus.limits import LocalLimits
from eventbus.subject import Subjects, covers, without_covered

__all__ = ("MemoryBroker", "Sizes")

RUN = "eventbus-run"
StoredT = TypeVar("StoredT")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The limits of a broker; by default those of the settings' defaults."""

    max_bytes: int = 512 * 1024 * 1024
    """Size of the stream of events, and of that of dead letters."""
    later_max_bytes: int = 512 * 1024 * 1024
    """Size above which nothing more is scheduled or held."""
    max_age: float = 7 * 86400.0
    """Seconds for which events are kept."""
    duplicate_window: float = 600.0
    """Seconds for which ids are remembered."""
    max_payload: int = 1024 * 1024
    """Bytes of one message, its headers included."""


class MemoryBroker:
    """What a server is to processes: services that share one get each other's events.

    It lives as long as somebody holds it, so a test may stop a service and start the next one on
    the same streams. It belongs to one event loop and has no tasks; the drivers that are open move
    it by its clock. With a clock that stands still, no lease ends and nothing delayed comes.

    Args:
        clock: Where leases, delays, schedules and ages get their time from; the machine's where
            None.
        namespace: As in the settings of the services.
        sizes: Sizes and ages.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        namespace: str = "events",
        sizes: Sizes | None = None,
    ) -> None:
        self.clock = clock or SystemClock()
        self.subjects = Subjects(namespace)
        self.sizes = sizes or Sizes()
        self.attempts = LocalAttempts()
        self.parked = MemoryParked()
        self.limits = LocalLimits(self.clock)
        self.asking = LocalAsking()
        self.timers = Timers(self.clock)
        self.durables: dict[str, Durable] = {}
        self.states: dict[tuple[str, str], tuple[int, Message]] = {}
        """The last state event by name and key, with its sequence."""
        self.pressed: list[Action] = []
        """Called, once, when an event finds no room."""
        subjects = self.subjects
        self.events = self._stream(subjects.stream, max_age=self.sizes.max_age)
        self.later = Later(
            self._stream(subjects.later_stream, max_age=self.sizes.max_age, max_bytes=None),
            self.events,
            subjects=subjects,
            clock=self.clock,
            timers=self.timers,
            limit=self.sizes.later_max_bytes,
            window=self.sizes.duplicate_window,
            flow=self.flow,
        )
        self._dead: dict[str, Stream] = {}

    # Reading.

    def messages(self, stream: str | None = None) -> tuple[Message, ...]:
        """Return what a stream holds, in order; the stream of events where None.

        Raises:
            NoStreamError: There is none of that name.
        """
        return tuple(one.message for one in self._named(stream or self.events.name).all())

    def dead_letters(self, failed_queue: str = "") -> tuple[Message, ...]:
        """Return the dead letters, in order; those of a failed queue where one is named."""
        name = replace(self.subjects, failed_queue=failed_queue).dead_letter_stream
        return self.messages(name) if name in self._dead else ()

    def stored(self, stream: str, sequence: int) -> Stored | None:
        """Return what is stored in a place; None where it is gone.

        Raises:
            NoStreamError: There is no such stream.
        """
        return self._named(stream).get(sequence)

    # Publishing.

    def publish(self, message: Message, *, headroom: int) -> Receipt:
        """Store a message; see `eventbus.drivers.base.Driver.publish`."""
        self._check_size(message, headroom)
        receipt = self._put(self._taking(message.subject), message)
        self.flow()
        return receipt

    def marked(self, subject: str) -> Mark | None:
        """Return the last mark on a subject; None where none is left."""
        held = self.subjects.held(subject)
        found = self.events.last_on(subject) or self.later.stream.last_on(held)
        if found is None:
            return None
        return Mark(subject, found.message.headers.get(RUN, ""), found.sequence)

    def commit(self, mark: Mark, messages: Sequence[Message]) -> list[Receipt]:
        """Store a mark and messages, or nothing; see `eventbus.drivers.atomic.Atomic`."""
        found = self.marked(mark.subject)
        if (found.sequence if found is not None else 0) != mark.sequence:
            raise SequenceConflictError(name=mark.subject, subject=mark.subject)
        left = Message(mark.subject, {RUN: mark.run}, b"")
        for one in messages:
            self._check_size(one, HEADROOM)
            self._check_known(one)
        try:
            self._press(lambda: self.events.check_room([left, *messages]))
        except BackpressureError:
            left = replace(left, subject=self.subjects.held(mark.subject))
            receipts = self.later.hold_all(left, messages)
        else:
            self._put(self.events, left)
            receipts = [self._put(self.events, one) for one in messages]
        self.flow()
        return receipts

    def _check_known(self, message: Message) -> None:
        place = self.events.known(message.id)
        if place is not None:
            stored = self.events.get(place)
            receipt = Receipt(message.id or "", self.events.name, place, duplicate=True)
            check_same(message, None if stored is None else stored.message, receipt)

    def keep(self, message: Message, receipt: Receipt) -> None:
        """Keep a state event, unless a later one of its key is kept."""
        key = (message.headers[h.TYPE], h.ordering_key(message.headers))
        if self.states.get(key, (0, message))[0] < receipt.sequence:
            self.states[key] = (receipt.sequence, message)

    def purge(self, subject: str, last: int) -> int:
        """Remove what is stored on a subject or pattern at and below a sequence; return how many."""
        gone = [
            one.sequence
            for one in self.events.all()
            if one.sequence <= last and covers(subject, one.message.subject)
        ]
        for sequence in gone:
            self.events.remove(sequence)
        self.flow()
        return len(gone)

    def flow(self) -> None:
        """Take over what waits and fits, and hand out what can be."""
        self.later.take_over()
        for durable in list(self.durables.values()):
            durable.pump()

    # Durables.

    def provision(self, spec: ConsumerSpec) -> str:
        """Create a durable, or give one that exists its new options; it keeps its position.

        Returns what changed, in words.

        Raises:
            TopologyError: It took events that it wouldn't take any more.
            ValueError: ``start`` is no place to start.
        """
        is_behind = bool(spec.beside) and spec.beside in self.durables
        first = self._first("new" if is_behind else spec.start)
        filters = self._filters(spec)
        durable = self.durables.get(spec.durable)
        if durable is None:
            self.durables[spec.durable] = Durable(
                spec, filters, self.events, self.timers, first, first - 1, self.clock.now(), first
            )
            return f"created, it starts with {spec.start}"
        lost = [one for one in durable.filters if not any(covers(wide, one) for wide in filters)]
        if lost:
            raise TopologyError(
                thing=f"durable {spec.durable}",
                problem=f"takes {', '.join(lost)}, which its listener doesn't declare any more",
                remedy="give the listener another name= in subscribe(), or use another broker",
            )
        added = [one for one in filters if one not in durable.filters]
        durable.spec, durable.filters = spec, filters
        return f"takes {', '.join(added)} too" if added else ""

    def durable(self, name: str) -> Durable:
        """Return a durable.

        Raises:
            TopologyError: There is none of that name.
        """
        found = self.durables.get(name)
        if found is None:
            raise TopologyError(
                thing=f"durable {name}", problem="isn't there", remedy="start its listener first"
            )
        return found

    def pause(self, durable: str, until: datetime) -> None:
        """Hand out nothing of a durable until a time; what is in hand stays.

        Raises:
            TopologyError: There is no such durable.
        """
        self.durable(durable).pause(until)

    def resume(self, durable: str) -> None:
        """End a pause now.

        Raises:
            TopologyError: There is no such durable.
        """
        self.durable(durable).resume()

    def held_by(self) -> tuple[str, ...]:
        """Return the durables that hold the room."""
        return holders(one.state() for one in self.durables.values())

    # Inside.

    def _stream(self, name: str, *, max_age: float = 0.0, max_bytes: int | None = 0) -> Stream:
        sizes = self.sizes
        size = sizes.max_bytes if max_bytes == 0 else max_bytes
        window = sizes.duplicate_window
        return Stream(name, self.clock, max_bytes=size, max_age=max_age, window=window)

    def _named(self, name: str) -> Stream:
        for stream in (self.events, self.later.stream, *self._dead.values()):
            if stream.name == name:
                return stream
        raise NoStreamError(f"there is no stream {name}")

    def _taking(self, subject: str) -> Stream:
        subjects = self.subjects
        namespace = subjects.namespace
        if subject.startswith((subjects.prefix, f"{namespace}-inbox.")):
            return self.events
        if subject.startswith(tuple(f"{namespace}-{one}." for one in ("sched", "due", "retry"))):
            return self.later.stream
        if subject.startswith((f"{namespace}-dlq.", f"{namespace}-dlq-")):
            return self._dead_letters(subject.partition(".")[0].partition("-dlq")[2][1:])
        raise NoStreamError(
            f"no stream takes '{subject}'; give the broker the namespace of the services"
        )

    def _dead_letters(self, failed_queue: str) -> Stream:
        name = replace(self.subjects, failed_queue=failed_queue).dead_letter_stream
        if name not in self._dead:
            self._dead[name] = self._stream(name)
        return self._dead[name]

    def _put(self, stream: Stream, message: Message) -> Receipt:
        if stream is self.events:
            return self._press(lambda: put_in(stream, message))
        return put_in(stream, message)

    def _press(self, store: Callable[[], StoredT]) -> StoredT:
        """Store events; where they find no room, tell those who can make it, and who holds it."""
        try:
            return store()
        except BackpressureError as exc:
            waiting, self.pressed = self.pressed, []
            for tell in waiting:
                tell()
            raise BackpressureError(
                stream=exc.stream, problem=exc.problem, held_by=self.held_by()
            ) from exc

    def _check_size(self, message: Message, headroom: int) -> None:
        size = len(message.body) + header_bytes(message.headers)
        limit = self.sizes.max_payload - headroom
        if size > limit:
            name = message.headers.get(h.TYPE) or message.subject
            raise PayloadTooLargeError(name=name, size=size, limit=limit)

    def _filters(self, spec: ConsumerSpec) -> tuple[str, ...]:
        retries = self.subjects.retry(spec.service, spec.listener, ">")
        own = [retries] if spec.retries else []
        return without_covered([*map(self.subjects.event, spec.events), *own])

    def _first(self, start: Start) -> int:
        stored = self.events.all()
        match start:
            case "new":
                return self.events.last + 1
            case "all":
                return 1
            case datetime() if start.tzinfo is not None:
                later = (one.sequence for one in stored if one.at >= start)
                return next(later, self.events.last + 1)
            case int() if start >= 1 and not isinstance(start, bool):
                return start
            case _:
                raise ValueError(
                    f"start={start!r} is no place to start: use 'new', 'all', a sequence from 1, "
                    "or a datetime with a time zone"
                )
