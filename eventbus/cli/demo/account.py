"""The account of what became of every event, from what the server stores and services count; pure.

Nothing here knows what the traffic meant to do: an event counts once the stream holds it, and it
is accounted for once every durable that takes it has handled it or made it a dead letter.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from eventbus.cli.demo.scrape import Buckets, Samples

__all__ = (
    "Account",
    "Consumer",
    "DeadLetter",
    "Holdings",
    "Missing",
    "Recorded",
    "Row",
    "account_of",
    "unaudited",
)

HANDLED = ("ok", "dropped", "duplicate")
"""Outcomes after which a listener is done with an event; ``dead`` is counted in the DLQ."""
RETRIED = ("retry", "park")


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event, as the stream holds it."""

    id: str
    name: str
    source: str
    subject: str
    correlation_id: str
    causation_id: str | None
    time: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a listener has given up, as the DLQ holds it."""

    id: str
    name: str
    durable: str
    reason: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable, as the server describes it."""

    durable: str
    service: str
    listener: str
    takes: Callable[[str], bool]
    """Tells whether its filters match a subject."""
    unsettled: int = 0
    """Events that it hasn't handed out, or that are handed out and not settled."""


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the server holds."""

    events: tuple[Recorded, ...]
    dead_letters: tuple[DeadLetter, ...]
    consumers: tuple[Consumer, ...]
    """The durables on the stream of events."""
    audited: frozenset[str] | None = None
    """The ids in the audit trail; None where nobody looked."""
    ticks: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many ticks wait for their time, by the name of their event; one always does."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Events that a durable takes and that nobody accounts for."""

    durable: str
    event: str
    count: int

    def __str__(self) -> str:
        """Say it in words."""
        return f"{self.count} {self.event} neither handled nor dead-lettered by {self.durable}"


@dataclass(frozen=True, slots=True)
class Row:
    """What became of the events of one name."""

    event: str
    emitted: int
    deliveries: int
    """How often they are to be handled: once by each listener that takes them."""
    handled: int
    retried: int
    dead: int
    latency: Buckets
    """Seconds from emit to handled."""


@dataclass(frozen=True, slots=True)
class Account:
    """Everything that was emitted, and what became of it."""

    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
    dead_letters: tuple[DeadLetter, ...] = ()
    unaudited: int = 0
    """Events that the audit trail lacks, by id."""
    unstored: Mapping[str, int] = field(default_factory=dict[str, int])
    """Events that services count as emitted and the stream doesn't hold, by name."""
    unsettled: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything is accounted for."""
        return not self.problems()

    def problems(self) -> list[str]:
        """Say what is lost."""
        lost = [str(one) for one in self.missing]
        lost += [f"{n} {name} emitted and not stored" for name, n in self.unstored.items()]
        if self.unaudited:
            lost.append(f"{self.unaudited} events aren't in the audit trail")
        if self.unsettled:
            lost.append(f"{self.unsettled} deliveries are still not settled")
        return lost


def account_of(holdings: Holdings, metrics: Mapping[str, Samples]) -> Account:
    """Compare what the stream holds with what became of it, for every durable and event name.

    Args:
        holdings: What the server holds.
        metrics: What each service counts, by its name.
    """
    stored = Counter(one.name for one in holdings.events)
    subjects = {one.name: one.subject for one in holdings.events}
    dead = Counter((one.durable, one.name) for one in holdings.dead_letters)
    fates = {
        name: [
            _fate(name, one, metrics.get(one.service, Samples()), dead)
            for one in holdings.consumers
            if one.takes(subjects[name])
        ]
        for name in sorted(stored)
    }
    return Account(
        rows=tuple(_row(name, stored[name], each) for name, each in fates.items()),
        missing=tuple(
            Missing(fate.durable, name, stored[name] - fate.accounted)
            for name, each in fates.items()
            for fate in each
            if fate.accounted < stored[name]
        ),
        dead_letters=holdings.dead_letters,
        unaudited=unaudited(holdings),
        unstored=_unstored(stored + Counter(holdings.ticks), metrics.values()),
        unsettled=sum(one.unsettled for one in holdings.consumers),
    )


@dataclass(frozen=True, slots=True)
class _Fate:
    """What became of the events of one name at one durable."""

    durable: str
    handled: int
    retried: int
    dead: int
    latency: Buckets

    @property
    def accounted(self) -> int:
        return self.handled + self.dead


def _fate(
    name: str, consumer: Consumer, counted: Samples, dead: Mapping[tuple[str, str], int]
) -> _Fate:
    return _Fate(
        consumer.durable,
        handled=counted.processed(name, consumer.listener, HANDLED),
        retried=counted.processed(name, consumer.listener, RETRIED),
        dead=dead.get((consumer.durable, name), 0),
        latency=counted.end_to_end(name, consumer.listener),
    )


def _row(name: str, emitted: int, fates: Sequence[_Fate]) -> Row:
    return Row(
        event=name,
        emitted=emitted,
        deliveries=emitted * len(fates),
        handled=sum(one.handled for one in fates),
        retried=sum(one.retried for one in fates),
        dead=sum(one.dead for one in fates),
        latency=sum((one.latency for one in fates), Buckets()),
    )


def unaudited(holdings: Holdings) -> int:
    """Return how many events the audit trail lacks."""
    if holdings.audited is None:
        return 0
    given_up = {one.id for one in holdings.dead_letters if one.durable.startswith("audit__")}
    return len({one.id for one in holdings.events} - holdings.audited - given_up)


def _unstored(stored: Counter[str], metrics: Iterable[Samples]) -> dict[str, int]:
    emitted: Counter[str] = Counter()
    for one in metrics:
        emitted.update(one.emitted())
    return dict(emitted - stored)
