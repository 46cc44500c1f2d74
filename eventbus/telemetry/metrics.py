"""Prometheus metrics: counts what happened, by event name, listener and outcome.

Every series of a pair starts at 0 with its first event, so that a rate sees the first increment.
What is counted stands in `eventbus.telemetry.families`.
"""

import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from prometheus_client import CollectorRegistry, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from typing_extensions import override

from eventbus.clock import Clock, SystemClock
from eventbus.delivery import Outcome, Reason
from eventbus.drivers.base import Connected, ConsumerRecovered, DelayedLost, Disconnected
from eventbus.errors import EmitUnknown
from eventbus.middleware.breaker import BreakerState
from eventbus.telemetry.conditions import (
    BreakerChanged,
    DurableMeasured,
    DurablesChecked,
    RoomMade,
    StreamMeasured,
)
from eventbus.telemetry.context import sampled, trace_id
from eventbus.telemetry.families import NAMES
from eventbus.telemetry.multiprocess import SharedTallies, is_multiprocess
from eventbus.telemetry.outbox import OutboxMeasured, Quarantined, Relayed, RelayRefused
from eventbus.telemetry.scrape import Scrape
from eventbus.telemetry.signals import (
    Cancelled,
    Counter,
    Counting,
    EmitFailed,
    Emitted,
    Happened,
    Received,
    Returned,
    Settled,
    Stuck,
    TickFailed,
)
from eventbus.telemetry.tallies import Spread, Tallies, Tally

__all__ = ("NAMES", "OPENMETRICS", "UNKNOWN", "Metrics")

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
"""What to ask `Metrics.exposition` for, to see exemplars."""
UNKNOWN = "unknown"
"""The event label of a name that isn't declared: anybody can publish any name."""

_USUAL = frozenset({"-01", "-03"})
"""How a ``traceparent`` ends that is recorded."""
_EMIT_OUTCOMES = ("ok", "duplicate", "failed", "unknown")
_BREAKER = {BreakerState.CLOSED: 0, BreakerState.PROBING: 1, BreakerState.OPEN: 2}
_OK = Outcome.OK  # looking it up takes longer than counting it
_FINAL = (Outcome.OK, Outcome.DEAD, Outcome.DROPPED, Outcome.RAISED)


class Metrics(Counting):
    """Counts what it is told, in a registry of its own; hand it to services as an observer.

    Several services of one process may share it. All but `exposition`, and what the registry
    collects, is for the thread of the event loop: an emit from a thread, and a listener that runs
    in one, are told of on the loop too.

    Args:
        known: Tells whether an event name is declared; others are counted as ``unknown``.
        registry: Where the metrics are registered; one of its own, with those of the process,
            where None.
        clock: Tells when a series began, and when an exemplar was taken.

    Raises:
        ValueError: The registry has such metrics already.
    """

    def __init__(
        self,
        known: Callable[[str], bool],
        *,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
    ) -> None:
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
        self.registry = registry
        self._known = known
        kind = SharedTallies if is_multiprocess() else Tallies
        self._now = (clock or SystemClock()).now
        self._tallies = tallies = kind(self._now)
        registry.register(Scrape(tallies))
        self._emits: dict[tuple[str, str], _Emits] = {}
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._listeners: dict[str, _Listener] = {}
        # Any: each takes the record that it is filed under.
        self.takes: dict[type, Callable[[Any], None]] = {
            Received: self._received,
            Settled: self._settled,
            Emitted: self._emitted,
            EmitFailed: self._emit_failed,
            Cancelled: lambda _: self._count("eventbus_cancelled_total"),
            TickFailed: lambda _: self._count("eventbus_ticks_failed_total"),
            Returned: self._returned,
            Stuck: self._stuck,
            Connected: self._connect,
            Disconnected: lambda _: self._show(0, "eventbus_connected"),
            ConsumerRecovered: self._recovered,
            DelayedLost: self._delayed_lost,
            BreakerChanged: self._breaker,
            DurableMeasured: self._durable,
            DurablesChecked: self._durables,
            RoomMade: lambda one: self._count("eventbus_purged_total", by=one.events),
            StreamMeasured: self._stream,
            Relayed: self._relayed,
            RelayRefused: lambda one: self._count("eventbus_relay_refused_total", one.name),
            Quarantined: lambda one: self._count("eventbus_outbox_failed_total", one.name),
            OutboxMeasured: self._outbox,
        }
        """What it counts, and how."""
        Info("eventbus_build", "What runs here", registry=registry).info(
            {"version": _version(), "python": platform.python_version()}
        )

    def __call__(self, happened: Happened) -> None:
        """Count it."""
        feed = self.takes.get(type(happened))
        if feed is not None:
            feed(happened)

    @override
    def counter(self, name: str, listener: str) -> Counter:
        """Return what counts the usual deliveries of an event to a listener."""
        return _Usual(self._pairs.get((name, listener)) or self._pair(name, listener))

    def set_consumer(
        self, listener: str, *, pending: int, ack_pending: int, redelivered: int
    ) -> None:
        """Show what the server says of a listener's durable."""
        self._show(pending, "eventbus_consumer_pending", listener)
        self._show(ack_pending, "eventbus_consumer_ack_pending", listener)
        self._show(redelivered, "eventbus_consumer_redelivered", listener)

    def set_loop_lag(self, seconds: float) -> None:
        """Show by how much the event loop is late."""
        self._show(seconds, "eventbus_loop_lag_seconds")

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics and their content type, in what an ``Accept`` header prefers.

        Exemplars are in OpenMetrics only. Safe to call from any thread.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _received(self, one: Received) -> None:
        pair = self._pairs.get((one.name, one.listener)) or self._pair(one.name, one.listener)
        pair.received.add()
        if one.redelivered:
            pair.redelivered.add()
        pair.of_listener.in_flight.add()

    def _settled(self, one: Settled) -> None:
        pair = self._pairs.get((one.name, one.listener)) or self._pair(one.name, one.listener)
        listener, outcome = pair.of_listener, one.outcome
        listener.in_flight.add(-1)
        pair.outcomes[outcome].add()
        trace = _recorded(one.trace) if one.trace else ""
        at = self._now() if trace else None
        if one.duration > 0:
            pair.duration.add(one.duration, trace, at)
        if outcome is _OK and one.end_to_end is not None:
            # Clocks of two machines differ; a negative time would look like a counter reset.
            pair.end_to_end.add(one.end_to_end if one.end_to_end > 0 else 0.0, trace, at)
        if one.reason is not None:
            pair.reasons[one.reason].add()
        if outcome in _FINAL:
            listener.attempts.add(one.attempt)
            if one.redrive:
                listener.redriven[outcome].add()

    def _emitted(self, one: Emitted) -> None:
        emits = self._emits.get((one.name, one.driver)) or self._emits_of(one.name, one.driver)
        emits.outcomes["duplicate" if one.duplicate else "ok"].add()
        emits.duration.add(one.duration, _recorded(one.trace) if one.trace else "")

    def _emit_failed(self, one: EmitFailed) -> None:
        outcome = "unknown" if isinstance(one.error, EmitUnknown) else "failed"
        self._emits_of(one.name, one.driver).outcomes[outcome].add()

    def _returned(self, one: Returned) -> None:
        listener = self._listener(one.listener)
        listener.in_flight.add(-1)
        listener.returned.add()

    def _stuck(self, one: Stuck) -> None:
        listener = self._listener(one.listener)
        listener.in_flight.add(-1)
        listener.stuck.add()

    def _connect(self, one: Connected) -> None:
        self._show(1, "eventbus_connected")
        if one.again:
            self._count("eventbus_reconnects_total")

    def _recovered(self, one: ConsumerRecovered) -> None:
        listener = one.durable.partition("__")[2] or one.durable
        self._count("eventbus_consumer_recovered_total", listener)

    def _delayed_lost(self, one: DelayedLost) -> None:
        self._count("eventbus_delayed_lost_total", one.name)

    def _breaker(self, one: BreakerChanged) -> None:
        self._show(_BREAKER[one.state], "eventbus_breaker_state", one.listener)

    def _durable(self, one: DurableMeasured) -> None:
        state = one.durable
        self.set_consumer(
            one.listener,
            pending=state.pending,
            ack_pending=state.unsettled,
            redelivered=state.redelivered,
        )
        self._show(state.paused, "eventbus_paused", one.listener)
        oldest = max(0.0, one.oldest_unread or 0.0)
        self._show(oldest, "eventbus_oldest_unread_seconds", one.listener)

    def _durables(self, one: DurablesChecked) -> None:
        self._show(len(one.unattended), "eventbus_unattended_durables")
        self._show(len(one.aging), "eventbus_aging_durables")

    def _stream(self, one: StreamMeasured) -> None:
        which = "later" if one.later else "stream"
        self._show(one.fill.bytes, f"eventbus_{which}_bytes")
        self._show(one.fill.limit or math.inf, f"eventbus_{which}_limit_bytes")

    def _relayed(self, one: Relayed) -> None:
        # Its name is that of a class of the service that emitted it, so it is bounded.
        self._count("eventbus_relayed_total", one.name)
        waited = self._tallies.spread("eventbus_outbox_wait_seconds", one.name)
        waited.add(one.waited, _recorded(one.trace))

    def _outbox(self, one: OutboxMeasured) -> None:
        self._show(one.pending, "eventbus_outbox_pending")
        self._show(one.oldest, "eventbus_outbox_oldest_seconds")
        self._show(one.quarantined, "eventbus_outbox_quarantined")

    def _count(self, name: str, *labels: str, by: float = 1) -> None:
        self._tallies.tally(name, *labels).add(by)

    def _show(self, value: float, name: str, *labels: str) -> None:
        self._tallies.tally(name, *labels).show(value)

    # What an event adds to is looked up once and kept: finding it costs more than adding.

    def _pair(self, name: str, listener: str) -> "_Pair":
        # An unknown name isn't kept as a key: there is no end of them.
        event = name if self._known(name) else UNKNOWN
        pair = self._pairs.get((event, listener))
        if pair is None:
            of_listener = self._listener(listener)
            pair = self._pairs[event, listener] = _pair_of(
                self._tallies, event, listener, of_listener
            )
        return pair

    def _listener(self, listener: str) -> "_Listener":
        found = self._listeners.get(listener)
        if found is None:
            found = self._listeners[listener] = _listener_of(self._tallies, listener)
        return found

    def _emits_of(self, name: str, driver: str) -> "_Emits":
        # The name of an emit is that of a class, so it is bounded by the code.
        found = self._emits.get((name, driver))
        if found is None:
            found = self._emits[name, driver] = _emits_of(self._tallies, name, driver)
        return found


@dataclass(frozen=True, slots=True)
class _Emits:
    outcomes: Mapping[str, Tally]
    duration: Spread


@dataclass(frozen=True, slots=True)
class _Listener:
    in_flight: Tally
    attempts: Spread
    redriven: Mapping[str, Tally]
    returned: Tally
    stuck: Tally


@dataclass(frozen=True, slots=True)
class _Pair:
    received: Tally
    redelivered: Tally
    outcomes: Mapping[str, Tally]
    reasons: Mapping[str, Tally]
    duration: Spread
    end_to_end: Spread
    of_listener: _Listener


class _Usual(Counter):
    """Counts what `Metrics` would of a `Received` and of a `Settled`."""

    __slots__ = ("_attempts", "_duration", "_end_to_end", "_handled", "_in_flight", "_received")

    def __init__(self, pair: _Pair) -> None:
        self._received = pair.received
        self._in_flight = pair.of_listener.in_flight
        self._handled = pair.outcomes[_OK]
        self._duration = pair.duration
        self._end_to_end = pair.end_to_end
        self._attempts = pair.of_listener.attempts

    @override
    def received(self) -> None:
        """Count one that came in."""
        self._received.add()
        self._in_flight.add()

    @override
    def handled(self, duration: float, end_to_end: float, trace: str) -> None:
        """Count one that was handled at its first delivery."""
        seen = _recorded(trace) if trace else ""
        self._in_flight.add(-1)
        self._handled.add()
        if duration > 0:
            self._duration.add(duration, seen)
        # Clocks of two machines differ; a negative time would look like a counter reset.
        self._end_to_end.add(end_to_end if end_to_end > 0 else 0.0, seen)
        self._attempts.add(1)


def _emits_of(tallies: Tallies, event: str, driver: str) -> _Emits:
    return _Emits(
        outcomes=tallies.by("eventbus_emitted_total", event, driver, each=_EMIT_OUTCOMES),
        duration=tallies.spread("eventbus_emit_duration_seconds", event, driver),
    )


def _pair_of(tallies: Tallies, event: str, listener: str, of_listener: _Listener) -> _Pair:
    pair = event, listener
    return _Pair(
        received=tallies.tally("eventbus_received_total", *pair),
        redelivered=tallies.tally("eventbus_redeliveries_total", *pair),
        outcomes=tallies.by("eventbus_processed_total", *pair, each=Outcome),
        reasons=tallies.by("eventbus_dead_letters_total", *pair, each=Reason),
        duration=tallies.spread("eventbus_listener_duration_seconds", *pair),
        end_to_end=tallies.spread("eventbus_end_to_end_seconds", *pair),
        of_listener=of_listener,
    )


def _listener_of(tallies: Tallies, listener: str) -> _Listener:
    return _Listener(
        in_flight=tallies.tally("eventbus_in_flight", listener),
        attempts=tallies.spread("eventbus_attempts", listener),
        redriven=tallies.by("eventbus_redriven_total", listener, each=_FINAL),
        returned=tallies.tally("eventbus_returned_total", listener),
        stuck=tallies.tally("eventbus_stuck_total", listener),
    )


def _recorded(traceparent: str) -> str:
    """Return the trace to show with a measurement; a trace that isn't recorded leads nowhere."""
    if len(traceparent) == 55 and traceparent[52:] in _USUAL and traceparent[35] == "-":
        return traceparent[3:35]
    return (trace_id(traceparent) or "") if sampled(traceparent) else ""


def _version() -> str:
    try:
        return metadata.version("eventbus")
    except metadata.PackageNotFoundError:
        return "unknown"
