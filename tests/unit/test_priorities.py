"""A listener whose events differ in priority: which listeners become of it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from eventbus.batch import Batch
from eventbus.errors import DuplicateSubscriptionError
from eventbus.event import Event
from eventbus.registry import Registry
from eventbus.roster import Roster
from eventbus.subscription import Subscription


class TaskAdded(Event, name="task.added"): ...


class TaskFailed(Event, name="task.failed", priority="high"): ...


class TaskLost(Event, name="task.lost", priority="high"): ...


class TaskLogged(Event, name="task.logged", priority="low"): ...


async def note(event: Event) -> None: ...


def bound(
    target: type[Event] | str, listener: Callable[..., Awaitable[None]] = note, **options: Any
) -> dict[str, Subscription]:
    registry, roster = Registry(), Roster("mail")
    for event in (TaskAdded, TaskFailed, TaskLost, TaskLogged):
        registry.register(event)
    roster.declare(target, listener, options)  # type: ignore[arg-type]
    for _ in range(2):  # a service may be started again
        roster.bind_all(registry, lambda: registry)
    return {one.listener: one for one in roster}


def test_a_pattern_gets_a_listener_for_each_priority() -> None:
    found = bound("task.*", concurrency=5)

    assert {name: (one.events, one.priority, one.beside) for name, one in found.items()} == {
        "note": (("task.*",), "normal", ""),
        "note-high": (("task.failed", "task.lost"), "high", "mail__note"),
        "note-low": (("task.logged",), "low", "mail__note"),
    }
    assert found["note"].left_to == {
        "task.failed": "mail__note-high",
        "task.lost": "mail__note-high",
        "task.logged": "mail__note-low",
    }
    assert {one.concurrency for one in found.values()} == {5}


def test_an_event_is_one_listeners_to_handle() -> None:
    found = bound("task.*")

    assert {
        name: [one.listener for one in found.values() if one.takes_name(name)]
        for name in ("task.added", "task.failed", "task.logged", "task.unknown")
    } == {
        "task.added": ["note"],
        "task.failed": ["note-high"],
        "task.logged": ["note-low"],
        "task.unknown": ["note"],
    }


@pytest.mark.parametrize(("event", "priority"), [(TaskFailed, "high"), (TaskAdded, "normal")])
def test_a_listener_of_one_class_has_its_priority_and_stays_one(
    event: type[Event], priority: str
) -> None:
    (one,) = bound(event).values()

    assert (one.listener, one.priority, one.left_to) == ("note", priority, {})


@pytest.mark.parametrize("option", [{"ordered": True}, {"mode": "fanout"}], ids=str)
def test_a_listener_that_stays_one_has_the_weight_of_its_events(option: dict[str, Any]) -> None:
    (urgent,) = bound("task.failed", **option).values()
    (mixed,) = bound("task.*", **option).values()

    assert (urgent.priority, mixed.priority) == ("high", "normal")
    assert (mixed.events, mixed.left_to) == (("task.*",), {})


def test_order_and_batches_are_left_as_they_are() -> None:
    async def many(events: list[Event]) -> None: ...

    assert [*bound("task.*", ordered=True)] == ["note"]
    assert [*bound("task.*", many, batch=Batch())] == ["many"]


def test_another_listener_of_that_name_is_refused() -> None:
    registry, roster = Registry(), Roster("mail")
    for event in (TaskAdded, TaskFailed):
        registry.register(event)
    roster.declare("task.*", note, {})
    roster.declare(TaskAdded, note, {"name": "note-high"})

    with pytest.raises(DuplicateSubscriptionError, match="note-high"):
        roster.bind_all(registry, lambda: registry)
