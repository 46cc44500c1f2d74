"""The checker: a history and what the server holds at the end, judged by the invariants.

I1 nothing is lost, I3 nothing is stored twice, I4 order by key, I5 nothing appears from nowhere,
I6 bounds are kept, I7 nothing is discarded silently, I8 it serves again. I2, no effect twice, has
its place below and comes with the inbox.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.harness.history import History, What

__all__ = ("Evidence", "Letter", "Measure", "Stored", "Violation", "violations")

MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of the stream of events."""

    sequence: int
    subject: str
    id: str
    mark: str
    """Empty where it isn't a step."""
    thread: str = ""
    """Its key."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter."""

    listener: str
    mark: str
    reason: str
    error: str
    attempts: int
    sequence: int
    """Of the original."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that has a bound."""

    what: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that didn't hold, and how."""

    invariant: str
    problem: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is judged."""

    history: History
    stored: Sequence[Stored]
    letters: Sequence[Letter]
    listeners: Collection[str]
    """Each of them gets every event."""
    backlog: Mapping[str, int] = field(default_factory=dict)
    """By listener, what it still has to get or to settle."""
    removed: Collection[str] = ()
    """Marks of what the case itself took out of the stream."""
    ordered: Collection[str] = ()
    """Listeners that promise order by key."""
    exactly_once: Collection[str] = ()
    """Listeners with an inbox."""
    measures: Sequence[Measure] = ()
    serving: Mapping[str, bool] = field(default_factory=dict)
    """By service, whether it was ready and did its work at the end."""


def violations(evidence: Evidence) -> list[Violation]:
    """Return every invariant that doesn't hold; nothing where all is well."""
    found: list[Violation] = []
    for invariant, check in _CHECKS.items():
        found.extend(Violation(invariant, problem) for problem in check(evidence))
    return found


def _nothing_lost(evidence: Evidence) -> Iterator[str]:
    history = evidence.history
    kept = {one.mark for one in evidence.stored}
    gone = history.marks(What.STORED) - kept - set(evidence.removed)
    yield from _named("emits returned and the stream doesn't hold them", gone)
    for listener in evidence.listeners:
        ended = history.marks(What.EFFECT, listener=listener)
        ended |= {one.mark for one in evidence.letters if one.listener == listener}
        missed = kept - ended - {""}
        if not evidence.backlog.get(listener, 0):
            yield from _named(f"stored, and {listener} neither handled nor buried them", missed)
        elif evidence.backlog[listener] < len(missed):
            yield (
                f"{listener} misses {len(missed)} events, and only {evidence.backlog[listener]} "
                "are on their way to it"
            )


def _stored_once(evidence: Evidence) -> Iterator[str]:
    marks = Counter(one.mark for one in evidence.stored if one.mark)
    yield from _named("stored more than once", [mark for mark, n in marks.items() if n > 1])
    ids = Counter(one.id for one in evidence.stored if one.id)
    yield from _named("ids stored more than once", [id for id, n in ids.items() if n > 1])


def _in_order(evidence: Evidence) -> Iterator[str]:
    for listener in evidence.ordered:
        place = {one.mark: (one.thread, one.sequence) for one in evidence.stored}
        reached: dict[str, int] = {}
        late: list[str] = []
        for entry in sorted(
            evidence.history.of(What.EFFECT, listener=listener), key=lambda one: one.at
        ):
            # A repeated effect is I2's affair; here the first one of each event counts.
            thread, sequence = place.pop(entry.mark, ("", 0))
            if sequence and sequence < reached.get(thread, 0):
                late.append(entry.mark)
            reached[thread] = max(sequence, reached.get(thread, 0))
        yield from _named(f"{listener} handled them after a later one of their key", late)


def _nothing_from_nowhere(evidence: Evidence) -> Iterator[str]:
    history = evidence.history
    emitted = history.marks(What.INVOKED)
    kept = {one.mark for one in evidence.stored if one.mark}
    yield from _named("in the stream, and nobody emitted them", kept - emitted)
    refused = history.marks(What.REFUSED) - history.marks(What.STORED, What.UNKNOWN)
    yield from _named("in the stream, and their emit said that they aren't", kept & refused)
    handled = history.marks(What.EFFECT) - kept - set(evidence.removed)
    yield from _named("handled, and the stream doesn't hold them", handled)


def _within_bounds(evidence: Evidence) -> Iterator[str]:
    for one in evidence.measures:
        if one.value > one.limit:
            yield f"{one.what}: {one.value:.2f}, at most {one.limit:g} is allowed"


def _nothing_silent(evidence: Evidence) -> Iterator[str]:
    twice = Counter((one.listener, one.sequence) for one in evidence.letters)
    yield from _named(
        "dead letters of one failure stored more than once",
        [f"{listener} {sequence}" for (listener, sequence), n in twice.items() if n > 1],
    )
    bare = [one.mark or str(one.sequence) for one in evidence.letters if not one.reason]
    yield from _named("dead letters that don't say why", bare)
    told = {
        (one.listener, one.sequence)
        for one in evidence.history.of(What.SETTLED)
        if one.detail == "dead"
    }
    kept = {(one.listener, one.sequence) for one in evidence.letters}
    without = [f"{listener} {sequence}" for listener, sequence in told - kept]
    yield from _named("told to be dead, and there is no letter", without)


def _serves_again(evidence: Evidence) -> Iterator[str]:
    for service, serves in evidence.serving.items():
        if not serves:
            yield f"{service} wasn't ready at the end, or didn't do its work"


def _no_effect_twice(evidence: Evidence) -> Iterator[str]:
    for listener in evidence.exactly_once:
        effects = evidence.history.counts(What.EFFECT, listener)
        twice = [mark for mark, n in effects.items() if n > 1]
        yield from _named(f"{listener} had their effect more than once", twice)


def _named(problem: str, marks: Collection[str]) -> Iterator[str]:
    if marks:
        some = sorted(marks)[:MOST_NAMED]
        more = f" and {len(marks) - len(some)} more" if len(marks) > len(some) else ""
        yield f"{len(marks)} {problem}: {', '.join(some)}{more}"


_CHECKS = {
    "I1": _nothing_lost,
    "I2": _no_effect_twice,
    "I3": _stored_once,
    "I4": _in_order,
    "I5": _nothing_from_nowhere,
    "I6": _within_bounds,
    "I7": _nothing_silent,
    "I8": _serves_again,
}
