"""`Reader`: reads the events of one listener at a glance; the rest of each is read when asked for.

Only what our own emitters write can be read this way. It gives what `eventbus.codec.decode` gives;
what isn't as expected is left to that.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from eventbus import headers as h
from eventbus.calling import read_for
from eventbus.correlation import NO_TRACE, Handled, Scope
from eventbus.delivery import Readable
from eventbus.envelope import Envelope
from eventbus.errors import EventBusError
from eventbus.event import Event
from eventbus.record import quick
from eventbus.subscription import Subscription
from eventbus.wiring import Wiring

__all__ = ("Glance", "Plan", "Reader")

_FIRST_OWN = b"\r\nce-id: "
_OWN = re.compile(
    r"\r\nce-id: ([!-$&-~]{1,128}+)"
    r"\r\nce-time: ([!-~]{1,40}+)"
    r"\r\nce-correlationid: (\1|[!-$&-~]{1,128}+)"
    r"(?:\r\nce-causationid: ([!-$&-~]{1,128}+))?"
    r"(?:\r\nce-partitionkey: ([!-~]*+))?"
    r"(?:\r\ntraceparent: ([!-~]++))?"
    r"(?:\r\nNats-Msg-Id: (?:\1|[!-~]*+))?"
    r"\r\n\r\n"
).fullmatch
"""What `eventbus.codec.encode` writes for each event, in its order; ids without an escape.

Often all ids are the same one, which is compared more quickly than each character is looked up.
"""
_SHARED = frozenset(
    {h.SPEC_VERSION, h.SOURCE, h.TYPE, h.DATA_SCHEMA, h.CONTENT_TYPE, h.KIND, h.TAGS}
)
"""What it writes for all events of a class, before."""
_PLANS_KEPT = 256


@quick
@dataclass(frozen=True, slots=True)
class Plan:
    """What all events have in common whose subject and first headers are the same."""

    event: type[Event]
    validate: Callable[..., Event]
    name: str
    version: int
    source: str
    tags: tuple[str, ...]
    kind: str
    place: str
    """The listener's, for the ids of what it emits."""


class Glance:
    """An event, and its other parts as they came; the rest is made when somebody asks."""

    __slots__ = (
        "_delivery",
        "_envelope",
        "_event",
        "_key",
        "_scope",
        "_time",
        "_when",
        "causation_id",
        "correlation_id",
        "id",
        "plan",
        "trace",
    )

    def __init__(self, plan: Plan, event: Event, own: re.Match[str], delivery: Readable) -> None:
        self.plan = plan
        self._event: Event | None = event
        self._delivery = delivery
        self._envelope: Envelope | None = None
        self._scope: Scope | None = None
        self._when: datetime | None = None
        self.id: str
        """The event's id."""
        self.correlation_id: str
        """What it belongs to."""
        self.causation_id: str | None
        """The event that was handled where it was emitted."""
        self.trace: str | None
        """The ``traceparent`` that it was sent with."""
        self.id, self._time, self.correlation_id, self.causation_id, self._key, self.trace = (
            own.groups()
        )

    @property
    def event(self) -> Event:
        """The event."""
        if self._event is None:
            self._event = self.plan.validate(self._delivery.arrived.data, extra="ignore")
        return self._event

    def let_go(self) -> None:
        """Keep what was read of the event no longer; it is handled, and hardly needed again."""
        self._event = None

    @property
    def time(self) -> datetime:
        """When it was emitted, in UTC."""
        if self._when is None:
            self._when = h.parse_time(self._time) or self._delivery.stored_at
        return self._when

    @property
    def key(self) -> str | None:
        """Its ordering key."""
        return None if self._key is None else h.unquoted(self._key)

    def scope(self) -> Scope:
        """Return what an emit of its listener inherits."""
        if self._scope is None:
            handled = Handled(self.id, self.plan.place)
            self._scope = Scope(self.correlation_id, self.id, self.traced(), handled)
        return self._scope

    def envelope(self) -> Envelope:
        """Return all of it."""
        if self._envelope is None:
            plan = self.plan
            self._envelope = Envelope(
                self.event,
                self._delivery.arrived.data,
                self.id,
                plan.name,
                plan.version,
                self.time,
                plan.source,
                self.key,
                self.correlation_id,
                self.causation_id,
                plan.tags,
                plan.kind,
                trace=self.traced(),
            )
        return self._envelope

    def traced(self) -> Mapping[str, str]:
        """Return the headers of its trace."""
        return NO_TRACE if self.trace is None else {"traceparent": self.trace}


class Reader:
    """Reads the events of one listener."""

    def __init__(self, subscription: Subscription, wiring: Wiring) -> None:
        self._subscription = subscription
        self._registry = wiring.registry
        self._subjects = wiring.subjects
        self._plans: dict[tuple[bytes, bytes], Plan | None] = {}
        self._changes = wiring.registry.changes
        self._subject, self._before = b"", b""
        self._plan: Plan | None = None
        """That of the last event, which the next one's is nearly always."""

    def read(self, delivery: Readable) -> Glance | None:
        """Return the event of a delivery; None where that takes more than a glance."""
        one = delivery.arrived
        head = one.head
        is_same = head.startswith(self._before) and one.subject_bytes == self._subject
        # Another head may begin with this one.
        is_same = is_same and head.startswith(_FIRST_OWN, len(self._before))
        cut = len(self._before) if is_same else head.find(_FIRST_OWN)
        own = _OWN(head[cut:].decode("latin-1")) if cut > 0 else None
        if own is None:
            return None
        if self._changes != self._registry.changes:
            self._plans.clear()
            self._changes = self._registry.changes
            is_same = False
        plan = self._plan if is_same else self._planned(delivery, one.subject_bytes, head[:cut])
        if plan is None:
            return None
        try:
            event = plan.validate(one.data, extra="ignore")
        except Exception:  # noqa: BLE001 - whatever it is, decoding finds it again and tells it
            return None
        return Glance(plan, event, own, delivery) if type(event) is plan.event else None

    def _planned(self, delivery: Readable, subject: bytes, before: bytes) -> Plan | None:
        try:
            plan = self._plans[subject, before]
        except KeyError:
            if len(self._plans) >= _PLANS_KEPT:  # anybody can publish anything
                self._plans.clear()
            plan = self._plans[subject, before] = self._made_plan(delivery, before)
        self._subject, self._before, self._plan = subject, before, plan
        return plan

    def _made_plan(self, delivery: Readable, before: bytes) -> Plan | None:
        """Return how to read what is alike, found by reading one of them the whole way."""
        one, registry, message = self._subscription, self._registry, delivery.message
        name = self._subjects.event_name(message.subject)
        if name is None or message.subject != self._subjects.event(name) or name not in registry:
            return None
        _, *lines = before.lower().split(b"\r\n")
        names = {line.partition(b":")[0].decode(errors="replace") for line in lines}
        if not names <= _SHARED or h.DATA_SCHEMA not in names:
            return None
        try:
            full = read_for(one, message, name, registry, received=delivery.stored_at)
        except EventBusError:
            return None
        reading = registry.reading(name, full.version, one.accepts)
        if reading.steps or type(full.event) is not reading.event or not one.takes(full.event):
            return None
        return Plan(
            reading.event,
            reading.event.__pydantic_validator__.validate_json,
            name,
            full.version,
            full.source,
            full.tags,
            full.kind,
            one.place,
        )
