"""The streams of a namespace as they are declared for a server's API level; pure.

Two streams carry the events: schedules exclude ``discard: new``, so what waits has its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from eventbus.drivers.jetstream.api import Table, rows, text
from eventbus.drivers.jetstream.drift import OWNER, Rule, described, extended, more, switched_on
from eventbus.errors import ServerTooOldError
from eventbus.settings import Settings
from eventbus.subject import covers

__all__ = (
    "NOT_ASKED",
    "ServerInfo",
    "declared_streams",
    "negotiated",
    "outside",
    "own_subjects",
    "takes",
)

OWNED_BY = "eventbus"
"""What the metadata of our streams names as their owner."""

ADDITIVE: Mapping[str, Rule] = {
    "subjects": extended,
    "max_bytes": more,
    "max_msgs": more,
    "max_age": more,
    "duplicate_window": more,
    "num_replicas": more,
    "allow_direct": switched_on,
    "allow_msg_ttl": switched_on,
    "allow_atomic": switched_on,
    "allow_batched": switched_on,
    "allow_msg_schedules": switched_on,
}
"""What mode ``auto`` may change on a stream that exists, and in which direction."""

_NEEDED = "2.12"
_NEEDED_LEVEL = 2
_RELEASES = {0: "2.10 or older", 1: "2.11", 2: "2.12", 3: "2.12", 4: "2.14", 5: "2.15"}
_LEVEL_OF_FIELD = {"allow_batched": 4}
"""A server refuses a field that it doesn't know, so these are left out below their level."""
_MISSING: Mapping[int, tuple[str, ...]] = {
    2: ("fast ingest", "cron schedules"),
    # Releases of this level (2.12.8) refuse to source what a schedule fired (error 10188), and
    # then nothing else that waits in EVENTS_LATER comes through either.
    3: ("fast ingest", "cron schedules", "schedules"),
}


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the server can do, by the level of its JetStream API."""

    version: str
    """The release of that level, like ``"2.15"``; empty where nobody asked."""
    level: int
    missing: tuple[str, ...] = ()
    """What this server doesn't have, of ``fast ingest``, ``cron schedules`` and ``schedules``;
    without the last one, nothing may be parked or delayed through EVENTS_LATER."""


NOT_ASKED = ServerInfo(version="", level=0)
"""Mode ``off``: a service with the least privilege may not ask."""


def negotiated(level: int) -> ServerInfo:
    """Return what a server of an API level can do.

    Raises:
        ServerTooOldError: It lacks what the bus can't do without.
    """
    version = _RELEASES.get(level, f"newer than {_RELEASES[max(_RELEASES)]}")
    if level < _NEEDED_LEVEL:
        raise ServerTooOldError(found=version, needed=_NEEDED)
    return ServerInfo(version=version, level=level, missing=_MISSING.get(level, ()))


def declared_streams(settings: Settings, level: int) -> tuple[Table, ...]:
    """Return all streams of the namespace, in the order in which to create them."""
    streams = (_later(settings), _events(settings), _state(settings), _dead_letters(settings))
    return tuple(
        described(_within(level, stream), {OWNER: OWNED_BY})
        for stream in (*streams, _attempts(settings))
    )


def own_subjects(stream: Table) -> tuple[str, ...]:
    """Return the subjects that are published to a stream."""
    listed = stream.get("subjects")
    return tuple(text(one) for one in listed) if isinstance(listed, list) else ()


def takes(stream: Table) -> tuple[str, ...]:
    """Return the subjects a stream can hold: its own, and what its sources turn theirs into."""
    turned = (
        text(transform.get("dest"))
        for source in rows(stream.get("sources"))
        for transform in rows(source.get("subject_transforms"))
    )
    return (*own_subjects(stream), *turned)


def outside(filters: tuple[str, ...], stream: Table) -> tuple[str, ...]:
    """Return the filters that a stream never matches; the server accepts those silently."""
    taken = takes(stream)
    return tuple(one for one in filters if not any(covers(wide, one) for wide in taken))


def _within(level: int, stream: Table) -> Table:
    return {
        field: value for field, value in stream.items() if level >= _LEVEL_OF_FIELD.get(field, 0)
    }


def _events(settings: Settings) -> Table:
    namespace = settings.namespace
    return {
        **_stream(settings, settings.subjects.stream, f"{namespace}.>", f"{namespace}-inbox.>"),
        "max_age": _nanoseconds(settings.max_age),
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "allow_batched": True,
        "sources": [
            {
                "name": settings.subjects.later_stream,
                "subject_transforms": [
                    {"src": f"{namespace}-due.>", "dest": f"{namespace}.>"},
                    {"src": f"{namespace}-retry.>", "dest": f"{namespace}-retry.>"},
                ],
            }
        ],
    }


def _later(settings: Settings) -> Table:
    waiting = (f"{settings.namespace}-{kind}.>" for kind in ("sched", "due", "retry"))
    return {
        **_stream(settings, settings.subjects.later_stream, *waiting),
        "discard": "old",
        "max_bytes": -1,
        # What has fired isn't needed once EVENTS has it; schedules carry `Nats-TTL: never`.
        "max_age": _nanoseconds(settings.max_age),
        "allow_msg_ttl": True,
        "allow_msg_schedules": True,
        "allow_atomic": True,
    }


def _state(settings: Settings) -> Table:
    subjects = settings.subjects
    return {
        **_stream(settings, subjects.state_stream, f"{settings.namespace}-state.>"),
        "max_msgs_per_subject": 1,
        "allow_msg_ttl": True,  # of what is left of a deleted state
    }


def _dead_letters(settings: Settings) -> Table:
    subjects = settings.subjects
    return _stream(settings, subjects.dead_letter_stream, subjects.dead_letters)


def _attempts(settings: Settings) -> Table:
    bucket = settings.subjects.attempts_bucket
    return {
        **_stream(settings, f"KV_{bucket}", f"$KV.{bucket}.>"),
        "max_msgs_per_subject": 1,
        "max_bytes": -1,
        "max_age": _nanoseconds(settings.max_age),  # an attempt needn't outlive its event
        "duplicate_window": _nanoseconds(min(120.0, settings.max_age)),
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_msg_ttl": True,
    }


def _stream(settings: Settings, name: str, *subjects: str) -> Table:
    return {
        "name": name,
        "subjects": [*subjects],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "num_replicas": settings.replicas,
        "max_bytes": settings.max_bytes,
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "duplicate_window": _nanoseconds(settings.duplicate_window),
        "allow_direct": True,
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
