"""`Reader`: reads the events of one listener at a glance; the rest of each is read when asked for.

Only what our own emitters write can be read this way. It gives what `eventbus.codec.decode` gives;
what isn't as expected is left to that.
"""

import re
from collections.abc import Callable
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

__all__ = ("Glance", "Reader")

_FIRST_OWN = b"\r\nce-id: "
_OWN = re.compile(
    rb"\r\nce-id: ([!-$&-~]{1,128})"
    rb"\r\nce-time: ([!-~]{1,40})"
    rb"\r\nce-correlationid: ([!-$&-~]{1,128})"
    rb"(?:\r\nce-causationid: ([!-$&-~]{1,128}))?"
    rb"(?:\r\nce-partitionkey: ([!-~]*))?"
    rb"(?:\r\ntraceparent: ([!-~]+))?"
    rb"(?:\r\nNats-Msg-Id: [!-~]*)?"
    rb"\r\n\r\n"
).fullmatch
"""What `eventbus.codec.encode` writes for each event, in its order; ids without an escape."""
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
    """An event, and its other parts as bytes; it makes each when asked."""

    __slots__ = ("_delivery", "_envelope", "_own", "_scope", "event", "plan")

    def __init__(self, plan: Plan, event: Event, own: re.Match[bytes], delivery: Readable) -> None:
        self.plan = plan
        self.event = event
        self._own = own
        self._delivery = delivery
        self._envelope: Envelope | None = None
        self._scope: Scope | None = None

    @property
    def id(self) -> str:
        """The event's id."""
        return self._own[1].decode()

    @property
    def time(self) -> datetime:
        """When it was emitted, in UTC."""
        return h.parse_time(self._own[2].decode()) or self._delivery.stored_at

    @property
    def correlation_id(self) -> str:
        """What it belongs to."""
        return self._own[3].decode()

    @property
    def causation_id(self) -> str | None:
        """The event that was handled where it was emitted."""
        return None if (found := self._own[4]) is None else found.decode()

    @property
    def traceparent(self) -> str:
        """The trace that it was sent with; empty without one."""
        return "" if (found := self._own[6]) is None else found.decode()

    def scope(self) -> Scope:
        """Return what an emit of its listener inherits."""
        if self._scope is None:
            id, trace = self.id, self.traceparent
            self._scope = Scope(
                correlation_id=self.correlation_id,
                causation_id=id,
                trace={"traceparent": trace} if trace else NO_TRACE,
                handled=Handled(id, self.plan.place),
            )
        return self._scope

    def envelope(self) -> Envelope:
        """Return all of it."""
        if self._envelope is None:
            plan, key, trace = self.plan, self._own[5], self.traceparent
            self._envelope = Envelope(
                self.event,
                self._delivery.body,
                self.id,
                plan.name,
                plan.version,
                self.time,
                plan.source,
                None if key is None else h.unquoted(key.decode()),
                self.correlation_id,
                self.causation_id,
                plan.tags,
                plan.kind,
                trace={"traceparent": trace} if trace else NO_TRACE,
            )
        return self._envelope


class Reader:
    """Reads the events of one listener."""

    def __init__(self, subscription: Subscription, wiring: Wiring) -> None:
        self._subscription = subscription
        self._registry = wiring.registry
        self._subjects = wiring.subjects
        self._plans: dict[tuple[bytes, bytes], Plan | None] = {}
        self._changes = wiring.registry.changes

    def read(self, delivery: Readable) -> Glance | None:
        """Return the event of a delivery; None where that takes more than a glance."""
        head = delivery.head
        cut = head.find(_FIRST_OWN)
        own = _OWN(head, cut) if cut > 0 else None
        if own is None:
            return None
        if self._changes != self._registry.changes:
            self._plans.clear()
            self._changes = self._registry.changes
        try:
            plan = self._plans[delivery.subject, head[:cut]]
        except KeyError:
            plan = self._planned(delivery, head[:cut])
        if plan is None:
            return None
        try:
            event = plan.validate(delivery.body, extra="ignore")
        except Exception:  # noqa: BLE001 - whatever it is, decoding finds it again and tells it
            return None
        return Glance(plan, event, own, delivery) if type(event) is plan.event else None

    def _planned(self, delivery: Readable, before: bytes) -> Plan | None:
        if len(self._plans) >= _PLANS_KEPT:  # anybody can publish anything
            self._plans.clear()
        plan = self._plans[delivery.subject, before] = self._plan(delivery, before)
        return plan

    def _plan(self, delivery: Readable, before: bytes) -> Plan | None:
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
