"""The durable of a listener as it is declared to the server; pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import JsonValue

from eventbus.drivers.base import ConsumerSpec, Start
from eventbus.drivers.jetstream.api import Table, number, table, text
from eventbus.drivers.jetstream.drift import (
    BESIDE,
    LISTENER,
    OWNER,
    Rule,
    any_change,
    described,
    more,
    owner_of,
)
from eventbus.headers import render_time
from eventbus.subject import Subjects, covers, without_covered

__all__ = (
    "ADDITIVE",
    "GROUP",
    "added_filters",
    "beside_of",
    "declared_durable",
    "filters_in",
    "filters_of",
    "found_durable",
    "is_kept",
    "listener_of",
    "pin_timeout",
    "starting",
)

GROUP = "ordered"
"""The priority group of an ordered durable."""
NO_POLICY = "none"
SHORTEST_PIN = 2.0
LONGEST_PIN = 10.0


def filters_of(spec: ConsumerSpec, subjects: Subjects) -> tuple[str, ...]:
    """Return what a listener's durable takes: its events, and what comes back to it alone."""
    return without_covered(
        [
            *(subjects.event(event) for event in spec.events),
            *([subjects.retry(spec.service, spec.listener, ">")] if spec.retries else []),
        ]
    )


def declared_durable(spec: ConsumerSpec, filters: Iterable[str]) -> Table:
    """Return the configuration of a durable, without where it starts."""
    return described(
        {
            # Both names: it is what the API subject, and so a permission, is built from.
            "name": spec.durable,
            **({"durable_name": spec.durable} if spec.lasting else {"mem_storage": True}),
            "ack_policy": "explicit",
            "ack_wait": round(spec.ack_wait * 1_000_000_000),
            "max_deliver": -1,
            "max_ack_pending": spec.max_ack_pending,
            "filter_subjects": [*filters],
            "backoff": [],  # naks ignore it, and it overrides ack_wait
            **_priority(spec),
            **({} if spec.kept is None else {"inactive_threshold": round(spec.kept * 1e9)}),
        },
        {
            OWNER: spec.service,
            LISTENER: spec.listener,
            **({BESIDE: spec.beside} if spec.beside else {}),
        },
    )


def pin_timeout(spec: ConsumerSpec) -> float:
    """Return after how many seconds without a pull another process may be pinned.

    Shorter than a lease where that leaves it time: what the lost one held is waited for anyway.
    """
    return min(LONGEST_PIN, max(SHORTEST_PIN, spec.ack_wait / 3))


def _priority(spec: ConsumerSpec) -> Table:
    if not spec.ordered:
        return {"priority_groups": [], "priority_policy": NO_POLICY, "priority_timeout": 0}
    return {
        "priority_groups": [GROUP],
        "priority_policy": "pinned_client",
        "priority_timeout": round(pin_timeout(spec) * 1_000_000_000),
    }


def starting(start: Start) -> Table:
    """Return the fields that say where a new durable begins.

    Raises:
        ValueError: It is no start, or a time without a zone.
    """
    match start:
        case "new" | "all":
            return {"deliver_policy": str(start)}
        case datetime() if start.tzinfo is not None:
            return {"deliver_policy": "by_start_time", "opt_start_time": render_time(start)}
        case int() if start >= 1 and not isinstance(start, bool):
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
        case _:
            raise ValueError(
                f"start={start!r} is no place to start: use 'new', 'all', a sequence from 1, "
                "or a datetime with a time zone"
            )


def found_durable(info: Table) -> Table:
    """Return the configuration in a consumer's info, filters as a list, its policy always named."""
    config = dict(table(info.get("config")))
    single = config.pop("filter_subject", None)
    if single:
        config["filter_subjects"] = [single]
    config.setdefault("priority_policy", NO_POLICY)
    return config


def filters_in(config: Table) -> tuple[str, ...]:
    """Return a durable's filters; none means all subjects."""
    listed = config.get("filter_subjects")
    return tuple(text(one) for one in listed) if isinstance(listed, list) else ()


def added_filters(declared: Table, found: Table) -> tuple[str, ...]:
    """Return the declared filters that take what no filter took before."""
    return _uncovered(filters_in(declared), filters_in(found) or (">",))


def is_kept(config: Table) -> bool:
    """Tell whether a durable stays also while nobody works it."""
    return not number(config.get("inactive_threshold"))


def listener_of(config: Table) -> tuple[str, str]:
    """Return service and listener by a durable's metadata, empty where it isn't ours."""
    return owner_of(config), text(table(config.get("metadata")).get(LISTENER))


def beside_of(config: Table) -> str:
    """Return the durable that one takes events of a priority from; empty for one of its own."""
    return text(table(config.get("metadata")).get(BESIDE))


def _widened(declared: JsonValue, found: JsonValue) -> bool:
    """Allow filters that still take all that was taken: narrowing is an explicit command."""
    before = filters_in({"filter_subjects": found}) or (">",)
    return not _uncovered(before, filters_in({"filter_subjects": declared}))


def _uncovered(filters: tuple[str, ...], by: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(one for one in filters if not any(covers(wide, one) for wide in by))


ADDITIVE: Mapping[str, Rule] = {
    "filter_subjects": _widened,
    "max_deliver": more,
    "ack_wait": any_change,
    "max_ack_pending": any_change,
    "priority_groups": any_change,
    "priority_policy": any_change,
    "priority_timeout": any_change,
}
"""What mode ``auto`` may change on a durable that exists."""
