"""What a provisioning mode permits, and how several problems become one error."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from eventbus.drivers.base import Notify, TopologyChanged
from eventbus.drivers.jetstream.api import Table
from eventbus.drivers.jetstream.drift import Difference, Rule, differences, edited
from eventbus.errors import EventBusError, TopologyError
from eventbus.settings import Provision

__all__ = ("Permit", "all_at_once", "caught", "raise_all")

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SETTING_OF: Mapping[str, str] = {
    "max_bytes": "EVENTBUS_MAX_BYTES",
    "max_age": "EVENTBUS_MAX_AGE",
    "duplicate_window": "EVENTBUS_DUPLICATE_WINDOW",
    "num_replicas": "EVENTBUS_REPLICAS",
}
_AUTO = "let a service with EVENTBUS_PROVISION=auto do it"


class Permit:
    """The rules of one provisioning mode, and whom to tell of what was done."""

    def __init__(self, mode: Provision, notify: Notify) -> None:
        self.mode = mode
        self._notify = notify

    def creation(self, thing: str) -> None:
        """Do nothing where the mode allows to create a missing thing.

        Raises:
            TopologyError: It doesn't.
        """
        if self.mode != "auto":
            problem = f"doesn't exist, and EVENTBUS_PROVISION={self.mode} creates nothing"
            raise TopologyError(thing=thing, problem=problem, remedy=_AUTO)

    def changes(
        self, thing: str, declared: Table, found: Table, additive: Mapping[str, Rule]
    ) -> tuple[Difference, ...]:
        """Return the differences to apply, none where there are none.

        Raises:
            TopologyError: The mode refuses them, or one takes something away; it lists all.
        """
        drift = differences(declared, found, additive)
        if self.mode == "auto" and all(one.additive for one in drift):
            return drift
        if drift:
            by_hand = " (changed by somebody since)" if edited(declared, found) else ""
            raise TopologyError(
                thing=thing,
                problem="; ".join(one.problem for one in drift) + by_hand,
                remedy=_remedy(drift),
            )
        return ()

    def changed(self, thing: str, change: str) -> None:
        """Tell that something was created or changed."""
        self._notify(TopologyChanged(thing=thing, change=change))


async def all_at_once(
    work: Callable[[_Item], Awaitable[_Result]], items: Sequence[_Item]
) -> list[_Result | EventBusError]:
    """Return the results in the order of the items; our own errors are results too."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(caught(work(item))) for item in items]
    return [task.result() for task in tasks]


async def caught(work: Awaitable[_Result]) -> _Result | EventBusError:
    """Return the result, or the error of ours that it ended with."""
    try:
        return await work
    except EventBusError as exc:
        return exc


def raise_all(results: Iterable[object]) -> None:
    """Raise the errors among results: one as it is, several of the topology as one.

    What isn't about the topology comes first: it made the rest doubtful.
    """
    errors = [one for one in results if isinstance(one, EventBusError)]
    topology = [one for one in errors if isinstance(one, TopologyError)]
    for one in errors:
        if len(errors) == 1 or one not in topology:
            raise one
    if topology:
        raise TopologyError(
            thing=", ".join(one.thing for one in topology),
            problem="; ".join(f"{one.thing}: {one.problem}" for one in topology),
            remedy="; ".join(dict.fromkeys(one.remedy for one in topology)),
        )


def _remedy(drift: tuple[Difference, ...]) -> str:
    lasting = [one for one in drift if not one.additive]
    if not lasting:
        return _AUTO
    kept = [f"{_SETTING_OF[one.field]}={one.kept}" for one in lasting if one.field in _SETTING_OF]
    advice = [f"set {' '.join(kept)} to keep what the server has"] if kept else []
    if any(one.field == "filter_subjects" for one in lasting):
        advice.append(
            "listen to what it took before as well, or delete the durable once its events are "
            "handled (nobody is given them afterwards)"
        )
    if len(kept) < len(lasting) or not advice:
        advice.append("or change it on the server yourself: the bus takes nothing away")
    return ", ".join(advice)
