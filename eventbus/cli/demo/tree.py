"""One correlation as a tree: events, the listeners that took them, what those emitted; pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from eventbus.cli.demo.account import Consumer, Holdings, Recorded

__all__ = ("story", "telling")


@dataclass(frozen=True, slots=True)
class _Facts:
    children: Mapping[str | None, Sequence[Recorded]]
    takers: Callable[[Recorded], Sequence[Consumer]]
    dead: Mapping[tuple[str, str], str]
    began: datetime


def telling(events: Iterable[Recorded], consumers: Sequence[Consumer]) -> str | None:
    """Return the correlation id that crosses the most services, the longest of these."""
    by_id: defaultdict[str, list[Recorded]] = defaultdict(list)
    for event in events:
        by_id[event.correlation_id].append(event)
    return max(by_id, key=lambda one: _width(by_id[one], consumers), default=None)


def _width(events: Sequence[Recorded], consumers: Sequence[Consumer]) -> tuple[int, int, float]:
    services = {event.source for event in events} | {
        one.service for one in consumers for event in events if one.takes(event.subject)
    }
    times = [event.time for event in events]
    return len(services), len(events), (max(times) - min(times)).total_seconds()


def story(correlation_id: str, holdings: Holdings) -> list[str]:
    """Return a correlation as lines of a tree.

    An event stands under the listener that emitted it, where the emitting service has only one
    that took its cause, else under its cause.
    """
    own = sorted(
        (one for one in holdings.events if one.correlation_id == correlation_id),
        key=lambda one: one.time,
    )
    if not own:
        return []
    children: defaultdict[str | None, list[Recorded]] = defaultdict(list)
    known = {one.id for one in own}
    for one in own:
        children[one.causation_id if one.causation_id in known else None].append(one)
    facts = _Facts(
        children=children,
        takers=lambda event: [one for one in holdings.consumers if one.takes(event.subject)],
        dead={(one.id, one.durable): one.reason for one in holdings.dead_letters},
        began=own[0].time,
    )
    lines = [f"correlation {correlation_id}"]
    for root in children[None]:
        lines += _event_lines(root, facts)
    return lines


def _event_lines(event: Recorded, facts: _Facts) -> list[str]:
    after = (event.time - facts.began).total_seconds() * 1000
    lines = [f"{event.name}  emitted by {event.source}, +{after:.0f} ms"]
    takers = facts.takers(event)
    placed = {one.id: _emitter(one, takers) for one in facts.children.get(event.id, ())}
    branches = [
        _listener_lines(
            one,
            event,
            [each for each in facts.children.get(event.id, ()) if placed[each.id] is one],
            facts,
        )
        for one in takers
    ]
    branches += [
        _event_lines(one, facts)
        for one in facts.children.get(event.id, ())
        if placed[one.id] is None
    ]
    return lines + _hung(branches)


def _emitter(event: Recorded, takers: Sequence[Consumer]) -> Consumer | None:
    candidates = [one for one in takers if one.service == event.source]
    return candidates[0] if len(candidates) == 1 else None


def _listener_lines(
    listener: Consumer, event: Recorded, emitted: Sequence[Recorded], facts: _Facts
) -> list[str]:
    reason = facts.dead.get((event.id, listener.durable))
    outcome = "handled" if reason is None else f"dead letter: {reason}"
    lines = [f"{listener.service}.{listener.listener}  {outcome}"]
    return lines + _hung([_event_lines(one, facts) for one in emitted])


def _hung(branches: Sequence[Sequence[str]]) -> list[str]:
    """Hang branches under the line before."""
    lines: list[str] = []
    for index, branch in enumerate(branches):
        last = index == len(branches) - 1
        lines.append(("└─ " if last else "├─ ") + branch[0])
        lines += [("   " if last else "│  ") + line for line in branch[1:]]
    return lines
