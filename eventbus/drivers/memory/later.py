"""`Later`: what waits in a broker: for its time, or for room in the stream of events."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from eventbus import headers as h
from eventbus.clock import Clock
from eventbus.drivers.memory.stream import Stream, put_in, size_of
from eventbus.drivers.receipt import Receipt
from eventbus.drivers.schedules import Waiting
from eventbus.drivers.timers import Timers
from eventbus.envelope import Message
from eventbus.errors import BackpressureError, DriverError
from eventbus.subject import Subjects

__all__ = ("Later",)

SCHEDULER = "nats-scheduler"


class Later:
    """The stream of what waits, and how the stream of events takes over from it.

    Args:
        stream: Where it waits.
        events: What takes over what is due, in its order.
        subjects: Those of the namespace.
        clock: Whose time schedules have.
        timers: What wakes them.
        limit: Size in bytes above which nothing more may wait.
        window: Seconds for which the mark of a cancelled schedule stays.
        flow: Called when something is due: it takes over, and hands out.
    """

    def __init__(  # noqa: PLR0913 - what a stream of its own is made of
        self,
        stream: Stream,
        events: Stream,
        *,
        subjects: Subjects,
        clock: Clock,
        timers: Timers,
        limit: int,
        window: float,
        flow: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.limit = limit
        """Bytes above which nothing more may wait."""
        self.waiting: dict[str, Waiting] = {}
        """What waits for its time, and the marks of what was cancelled, by holder."""
        self.is_blocked = False
        """Whether what is due finds no room."""
        self._events = events
        self._subjects = subjects
        self._clock = clock
        self._timers = timers
        self._window = window
        self._flow = flow
        self._taken_over = 0

    def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Store a message until its time has come; see `eventbus.drivers.base.Driver.schedule`."""
        headers = {**message.headers, "nats-schedule": f"@at {h.render_time(at)}"}
        receipt = self._wait(replace(message, subject=holder, headers=headers), keep=True)
        if receipt.duplicate:
            return receipt
        self._vacate(holder)
        message = replace(message, headers=h.lowered(message.headers))
        now, sequence = self._clock.now(), receipt.sequence
        self.waiting[holder] = Waiting(holder, at, message, self.stream.name, sequence, now)
        due = self._timers.now + (at - now).total_seconds()
        self._timers.at(due, lambda: self._fire(holder, sequence))
        return receipt

    def cancel(self, holder: str) -> None:
        """Leave a mark in place of what waits at a holder, for the duplicate window."""
        self._vacate(holder)
        sequence = self.stream.skip()
        now = self._clock.now()
        self.waiting[holder] = replace(
            self.waiting[holder], sequence=sequence, stored_at=now, is_cancelled=True
        )
        ends = self._timers.now + self._window
        self._timers.at(ends, lambda: self._drop(holder, sequence))

    def hold(self, message: Message) -> Receipt:
        """Store an event until there is room; see `eventbus.drivers.base.Driver.hold`."""
        receipt = self._wait(replace(message, subject=self._due(message.subject)))
        self._flow()
        return receipt

    def hold_all(self, mark: Message, messages: Sequence[Message]) -> list[Receipt]:
        """Store a mark, which stays here, and events until there is room; or nothing.

        Raises:
            BackpressureError: Too much waits.
        """
        self._check([mark, *messages])
        put_in(self.stream, mark)
        return [
            put_in(self.stream, replace(one, subject=self._due(one.subject))) for one in messages
        ]

    def tidy(self) -> None:
        """Remove what the stream of events has taken over."""
        for one in self.stream.all():
            if one.sequence <= self._taken_over and self._event(one.message.subject) is not None:
                self.stream.remove(one.sequence)

    def take_over(self) -> None:
        """Store what waits and is due, in its order; the first that doesn't fit holds up the rest."""
        self.is_blocked = False
        while self._taken_over < self.stream.last:
            stored = self.stream.get(self._taken_over + 1)
            subject = None if stored is None else self._event(stored.message.subject)
            if stored is not None and subject is not None:
                try:
                    self._events.put(replace(stored.message, subject=subject))
                except DriverError:
                    self.is_blocked = True
                    return
            self._taken_over += 1

    def _check(self, messages: Sequence[Message]) -> None:
        if self.stream.bytes + sum(map(size_of, messages)) > self.limit:
            raise BackpressureError(
                stream=self.stream.name, problem=f"over later_max_bytes={self.limit}"
            )

    def _wait(self, message: Message, *, keep: bool = False) -> Receipt:
        self._check([message])
        return put_in(self.stream, message, keep=keep)

    def _fire(self, holder: str, sequence: int) -> None:
        """Publish what has waited for its time, unless something replaced it."""
        found = self.waiting.get(holder)
        if found is None or found.sequence != sequence:
            return
        message = found.message
        self._drop(holder, sequence)
        # The server strips the id of what fires: it was used up when it was scheduled.
        headers = {**message.headers, SCHEDULER: holder}
        due = replace(message, subject=self._due(message.subject), headers=headers, id=None)
        put_in(self.stream, due)
        self._flow()

    def _drop(self, holder: str, sequence: int) -> None:
        """Forget what stands at a holder, if it still is that."""
        found = self.waiting.get(holder)
        if found is not None and found.sequence == sequence:
            del self.waiting[holder]
            self.stream.remove(sequence)

    def _vacate(self, holder: str) -> None:
        found = self.waiting.get(holder)
        if found is not None:
            self.stream.remove(found.sequence)

    def _due(self, subject: str) -> str:
        prefix = self._subjects.prefix
        is_event = subject.startswith(prefix)
        return self._subjects.due(subject.removeprefix(prefix)) if is_event else subject

    def _event(self, subject: str) -> str | None:
        """Return under which subject the stream of events takes over what waits; None if never."""
        due = self._subjects.due("")
        if subject.startswith(due):
            return self._subjects.event(subject.removeprefix(due))
        return subject if subject.startswith(f"{self._subjects.namespace}-retry.") else None
