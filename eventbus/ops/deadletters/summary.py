"""Many dead letters in few lines: grouped by what went wrong, and counted by listener."""

from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from datetime import datetime

from eventbus.delivery import Reason
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.ops.deadletters.letters import Letter, find

__all__ = ("Count", "Group", "Stats", "groups", "stats")


@dataclass(frozen=True, slots=True)
class Group:
    """Letters of one kind of failure: one listener, event, error type and place of the error."""

    fingerprint: str
    letters: int
    redriven: int
    """How many of them were redriven."""
    first: datetime
    """When the oldest one was stored."""
    last: datetime
    sample: Letter
    """The newest one."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many letters a listener has for one reason."""

    service: str
    listener: str
    reason: Reason
    letters: int
    redriven: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class Stats:
    """What the stream of dead letters holds."""

    letters: int
    redriven: int
    foreign: int
    """Messages there that aren't dead letters; the bus leaves them alone."""
    oldest: datetime | None
    newest: datetime | None
    stream: str
    bytes: int
    max_bytes: int | None
    """None for no limit. When it is full, what fails stays with its listener."""
    counts: tuple[Count, ...]
    """By listener and reason, the most letters first."""

    @property
    def fill(self) -> float | None:
        """The used part of its room, from 0 to 1; None where it has no limit."""
        return None if self.max_bytes is None else self.bytes / self.max_bytes


@dataclass(slots=True)
class _Tally:
    """A group of letters while they are counted, in the order of the stream."""

    first: Letter
    last: Letter
    letters: int = 0
    redriven: int = 0

    def add(self, letter: Letter) -> None:
        self.last = letter
        self.letters += 1
        self.redriven += bool(letter.redrives)


async def groups(letters: AsyncIterable[Letter]) -> tuple[Group, ...]:
    """Return the kinds of failures among letters, the one with the most first.

    Takes what `eventbus.ops.deadletters.find` yields, in the order of the stream.
    """
    tallies: dict[str, _Tally] = {}
    async for letter in letters:
        tallies.setdefault(letter.failure.fingerprint, _Tally(letter, letter)).add(letter)
    return tuple(
        Group(
            fingerprint=fingerprint,
            letters=one.letters,
            redriven=one.redriven,
            first=one.first.place.time,
            last=one.last.place.time,
            sample=one.last,
        )
        for fingerprint, one in sorted(tallies.items(), key=lambda item: -item[1].letters)
    )


async def stats(driver: JetStreamDriver) -> Stats:
    """Return what the stream of dead letters holds.

    Raises:
        TopologyError: There is no stream of dead letters.
        DriverError: The server can't say now.
    """
    view = await driver.letterbox.view()
    tallies: dict[tuple[str, str, Reason], _Tally] = {}
    async for letter in find(driver):
        failure = letter.failure
        kind = (failure.service, failure.listener, failure.reason)
        tallies.setdefault(kind, _Tally(letter, letter)).add(letter)
    letters = sum(one.letters for one in tallies.values())
    return Stats(
        letters=letters,
        redriven=sum(one.redriven for one in tallies.values()),
        foreign=max(0, view.messages - letters),
        oldest=min((one.first.place.time for one in tallies.values()), default=None),
        newest=max((one.last.place.time for one in tallies.values()), default=None),
        stream=view.name,
        bytes=view.bytes,
        max_bytes=view.max_bytes,
        counts=_counts(tallies.items()),
    )


def _counts(tallies: Iterable[tuple[tuple[str, str, Reason], _Tally]]) -> tuple[Count, ...]:
    counts = [
        Count(
            service=service,
            listener=listener,
            reason=reason,
            letters=one.letters,
            redriven=one.redriven,
            oldest=one.first.place.time,
        )
        for (service, listener, reason), one in tallies
    ]
    return tuple(sorted(counts, key=lambda one: (-one.letters, one.service, one.listener)))
