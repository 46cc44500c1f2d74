"""How the conditions of streams, durables and breakers are logged: name, level and fields."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from eventbus.errors import error_type
from eventbus.middleware.breaker import BreakerState
from eventbus.telemetry.conditions import (
    BreakerChanged,
    JanitorFailed,
    LaterFilling,
    RoomMade,
    RoomShort,
    Unattended,
    UnreadAging,
)
from eventbus.telemetry.context import trace_id
from eventbus.telemetry.outbox import Quarantined, Relayed, RelayFailed, RelayRefused

__all__ = ("LINES", "Fields", "Line", "at")

Fields: TypeAlias = dict[str, object]
Line: TypeAlias = tuple[str, Callable[[Any], int], Callable[[Any], Fields]]
"""The name of a line, and its level and fields by the record that it is about."""


def at(level: int) -> Callable[[object], int]:
    """Return a level that is always the same."""
    return lambda _: level


LINES: Mapping[type, Line] = {
    BreakerChanged: (
        "breaker.changed",
        lambda one: logging.INFO if one.state is BreakerState.CLOSED else logging.WARNING,
        lambda one: {
            "service": one.service,
            "listener": one.listener,
            "state": one.state.value,
            "problem": one.problem,
        },
    ),
    RoomMade: (
        "room.made",
        at(logging.INFO),
        lambda one: {"stream": one.stream, "events": one.events},
    ),
    RoomShort: (
        "room.short",
        at(logging.ERROR),
        lambda one: {
            "stream": one.stream,
            "size": one.bytes,
            "limit": one.limit,
            "held_by": list(one.held_by),
        },
    ),
    LaterFilling: (
        "later.filling",
        at(logging.ERROR),
        lambda one: {"stream": one.stream, "size": one.bytes, "limit": one.limit},
    ),
    Unattended: (
        "durable.unattended",
        at(logging.WARNING),
        lambda one: {"durable": one.durable, "unread": one.unread},
    ),
    UnreadAging: (
        "durable.aging",
        at(logging.ERROR),
        lambda one: {
            "durable": one.durable,
            "unread": one.unread,
            "age_s": round(one.age),
            "max_age_s": round(one.max_age),
        },
    ),
    Relayed: (
        "outbox.relayed",
        at(logging.DEBUG),
        lambda one: {
            "event_name": one.name,
            "event_id": one.id,
            "waited_ms": round(one.waited * 1000, 3),
            "duplicate": one.duplicate,
            "correlation_id": one.correlation_id or None,
            "trace_id": trace_id(one.trace),
        },
    ),
    RelayRefused: (
        "outbox.refused",
        at(logging.WARNING),
        lambda one: {
            "event_name": one.name,
            "event_id": one.id,
            "tries": one.tries,
            "error_type": error_type(one.error),
            "error_message": str(one.error),
        },
    ),
    Quarantined: (
        "outbox.quarantined",
        at(logging.ERROR),
        lambda one: {
            "event_name": one.name,
            "event_id": one.id,
            "error_type": error_type(one.error),
            "error_message": str(one.error),
            "correlation_id": one.correlation_id or None,
            "trace_id": trace_id(one.trace),
        },
    ),
    RelayFailed: (
        "relay.failed",
        at(logging.WARNING),
        lambda one: {
            "error_type": error_type(one.error),
            "error_message": str(one.error),
        },
    ),
    JanitorFailed: (
        "janitor.failed",
        at(logging.WARNING),
        lambda one: {
            "error_type": error_type(one.error),
            "error_message": str(one.error),
        },
    ),
}
"""Names are public: past tense, dotted, stable. What isn't listed is counted and not logged."""
