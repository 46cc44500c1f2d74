"""Splits a listener whose events differ in priority, so that urgent ones pass those that wait.

Each priority but the usual one gets a listener of its own, and with it a durable, for the events
of that class. The listener that was declared keeps what it had, and leaves to the new one what
is stored from that one's first sequence on.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from eventbus.event import Priority, spec_of
from eventbus.registry import Registry
from eventbus.subject import is_pattern
from eventbus.subscription import Subscription

__all__ = ("by_priority",)


def by_priority(one: Subscription, registry: Registry) -> tuple[Subscription, ...]:
    """Return a listener and those that its urgent and its unimportant events get.

    An ordered listener, one of batches and one whose durable is its own stay one; where their
    events are of one priority, they have its weight.
    """
    names = dict(_names(one, registry))
    classes = set(names.values())
    if one.beside or not classes:
        return (one,)
    if len(classes) == 1:
        return (replace(one, priority=classes.pop()),)
    if one.ordered or one.batch is not None or one.mode != "work" or one.is_replay:
        return (one,)
    apart: list[Subscription] = []
    left_to: dict[str, str] = {}
    for priority in get_args(Priority):
        mine = tuple(sorted(name for name, its in names.items() if its == priority))
        if priority != "normal" and mine:
            listener = f"{one.listener}-{priority}"
            other = replace(
                one,
                listener=listener,
                events=mine,
                priority=priority,
                beside=one.durable,
                left_to={},
            )
            apart.append(other)
            left_to |= dict.fromkeys(mine, other.durable)
    return (replace(one, left_to=left_to), *apart)


def _names(one: Subscription, registry: Registry) -> Iterator[tuple[str, Priority]]:
    for pattern in one.events:
        for name in registry.names(pattern) if is_pattern(pattern) else (pattern,):
            if name in registry:
                yield name, spec_of(registry.resolve(name)).priority
