"""Prometheus metrics: counts what happened, by event name, listener and outcome.

Labels are few-valued: names of declared events and of listeners, never subjects, ids or keys.
Units are base units. Every series of a pair starts at 0 with its first event, so that a rate
sees the first increment.
"""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from eventbus.delivery import Outcome, Reason
from eventbus.drivers.base import Connected, ConsumerRecovered, Disconnected
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
from eventbus.telemetry.outbox import OutboxMeasured, Quarantined, Relayed, RelayRefused
from eventbus.telemetry.signals import (
    Cancelled,
    EmitFailed,
    Emitted,
    Happened,
    Received,
    Returned,
    Settled,
    Stuck,
    TickFailed,
)

__all__ = ("NAMES", "OPENMETRICS", "UNKNOWN", "Metrics")

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
"""What to ask `Metrics.exposition` for, to see exemplars."""
UNKNOWN = "unknown"
"""The event label of a name that isn't declared: anybody can publish any name."""

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_ATTEMPTS = (1, 2, 3, 4, 5, 8, 12, 20)
_EMIT_OUTCOMES = ("ok", "duplicate", "failed", "unknown")
_BREAKER = {BreakerState.CLOSED: 0, BreakerState.PROBING: 1, BreakerState.OPEN: 2}
_FINAL = (Outcome.OK, Outcome.DEAD, Outcome.DROPPED, Outcome.RAISED)

_COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "eventbus_emitted_total": (
        "Emits: ok, duplicate (stored before), failed (not stored), unknown (no answer)",
        ("event", "driver", "outcome"),
    ),
    "eventbus_received_total": ("Deliveries that came in", ("event", "listener")),
    "eventbus_redeliveries_total": (
        "Deliveries that somebody had before",
        ("event", "listener"),
    ),
    "eventbus_processed_total": ("Deliveries settled", ("event", "listener", "outcome")),
    "eventbus_dead_letters_total": ("Events given up", ("event", "listener", "reason")),
    "eventbus_redriven_total": (
        "Events handled again after a redrive, by how that ended",
        ("listener", "outcome"),
    ),
    "eventbus_returned_total": ("Deliveries handed back at a stop", ("listener",)),
    "eventbus_stuck_total": (
        "Deliveries that couldn't be settled; the server delivers them again",
        ("listener",),
    ),
    "eventbus_cancelled_total": ("Delayed events cancelled before their time", ()),
    "eventbus_relayed_total": ("Events of the outbox that the stream has", ("event",)),
    "eventbus_relay_refused_total": ("Tries of the outbox that were refused", ("event",)),
    "eventbus_outbox_failed_total": ("Events of the outbox that can't go", ("event",)),
    "eventbus_ticks_failed_total": ("Ticks of recurring events that couldn't be stored", ()),
    "eventbus_purged_total": ("Handled events purged to make room", ()),
    "eventbus_reconnects_total": ("Connections that came back", ()),
    "eventbus_consumer_recovered_total": ("Pull loops that came back", ("listener",)),
}
_HISTOGRAMS: Mapping[str, tuple[str, tuple[str, ...], Sequence[float]]] = {
    "eventbus_emit_duration_seconds": (
        "From emit to the receipt",
        ("event", "driver"),
        _SECONDS,
    ),
    "eventbus_listener_duration_seconds": (
        "One run of a listener, middleware included",
        ("event", "listener"),
        _SECONDS,
    ),
    "eventbus_end_to_end_seconds": (
        "From emit to handled, of events handled",
        ("event", "listener"),
        _SECONDS,
    ),
    "eventbus_outbox_wait_seconds": (
        "From emit in a transaction to the stream",
        ("event",),
        _SECONDS,
    ),
    "eventbus_attempts": ("Attempts that an event took to its end", ("listener",), _ATTEMPTS),
}
_GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "eventbus_in_flight": ("Deliveries in hand", ("listener",)),
    "eventbus_consumer_pending": ("Events that wait on the server", ("listener",)),
    "eventbus_consumer_ack_pending": ("Events delivered and not settled", ("listener",)),
    "eventbus_consumer_redelivered": ("Of these, delivered more than once", ("listener",)),
    "eventbus_paused": ("1 while an operator has paused it", ("listener",)),
    "eventbus_oldest_unread_seconds": ("Age of the oldest event that waits", ("listener",)),
    "eventbus_breaker_state": ("0 closed, 1 probing, 2 open", ("listener",)),
    "eventbus_stream_bytes": ("Size of the stream of events", ()),
    "eventbus_stream_limit_bytes": ("The most it may hold", ()),
    "eventbus_later_bytes": ("Size of the stream of what waits", ()),
    "eventbus_later_limit_bytes": ("Size above which nothing more is parked or delayed", ()),
    "eventbus_outbox_pending": ("Events that wait in the outbox", ()),
    "eventbus_outbox_oldest_seconds": ("Age of the oldest of them", ()),
    "eventbus_outbox_quarantined": ("Events set aside in the outbox", ()),
    "eventbus_unattended_durables": ("Durables with events that nobody asks for", ()),
    "eventbus_aging_durables": ("Durables with events that will soon be too old", ()),
    "eventbus_connected": ("1 while the connection stands", ()),
    "eventbus_loop_lag_seconds": ("Longest delay of the event loop in the last 15 s", ()),
}
_PROCESS = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)

NAMES = frozenset(
    (
        *_COUNTERS,
        *_GAUGES,
        *(f"{name}_{part}" for name in _HISTOGRAMS for part in ("bucket", "count", "sum")),
        "eventbus_build_info",
        *_PROCESS,
    )
)
"""Every series that a process exposes; a dashboard or rule that names another one is wrong."""


class Metrics:
    """Counts what it is told, in a registry of its own; hand it to services as an observer.

    Several services of one process may share it. All but `exposition` is for the thread of the
    event loop.

    Args:
        known: Tells whether an event name is declared; others are counted as ``unknown``.
        registry: Where the metrics are registered; one of its own, with those of the process,
            where None.
    """

    def __init__(
        self, known: Callable[[str], bool], *, registry: CollectorRegistry | None = None
    ) -> None:
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
        self.registry = registry
        self._known = known
        counters = {
            name: Counter(name, text, labels, registry=registry)
            for name, (text, labels) in _COUNTERS.items()
        }
        histograms = {
            name: Histogram(name, text, labels, buckets=buckets, registry=registry)
            for name, (text, labels, buckets) in _HISTOGRAMS.items()
        }
        gauges = {
            name: Gauge(name, text, labels, registry=registry)
            for name, (text, labels) in _GAUGES.items()
        }
        self._all = _All(counters, histograms, gauges)
        self._emits: dict[tuple[str, str], _Emits] = {}
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._listeners: dict[str, _Listener] = {}
        self._connected = gauges["eventbus_connected"]
        self._reconnects = counters["eventbus_reconnects_total"]
        self._loop_lag = gauges["eventbus_loop_lag_seconds"]
        # Any: each takes the record that it is filed under.
        self._feeds: dict[type, Callable[[Any], None]] = {
            Received: self._received,
            Settled: self._settled,
            Emitted: self._emitted,
            EmitFailed: self._emit_failed,
            Cancelled: lambda _: counters["eventbus_cancelled_total"].inc(),
            TickFailed: lambda _: counters["eventbus_ticks_failed_total"].inc(),
            Returned: self._returned,
            Stuck: self._stuck,
            Connected: self._connect,
            Disconnected: self._disconnect,
            ConsumerRecovered: self._recovered,
            BreakerChanged: self._breaker,
            DurableMeasured: self._durable,
            DurablesChecked: self._durables,
            RoomMade: lambda one: counters["eventbus_purged_total"].inc(one.events),
            StreamMeasured: self._stream,
            Relayed: self._relayed,
            RelayRefused: lambda one: (
                counters["eventbus_relay_refused_total"].labels(one.name).inc()
            ),
            Quarantined: lambda one: (
                counters["eventbus_outbox_failed_total"].labels(one.name).inc()
            ),
            OutboxMeasured: self._outbox,
        }
        Info("eventbus_build", "What runs here", registry=registry).info(
            {"version": _version(), "python": platform.python_version()}
        )

    def __call__(self, happened: Happened) -> None:
        """Count it."""
        feed = self._feeds.get(type(happened))
        if feed is not None:
            feed(happened)

    def set_consumer(
        self, listener: str, *, pending: int, ack_pending: int, redelivered: int
    ) -> None:
        """Show what the server says of a listener's durable."""
        gauges = self._all.gauges
        gauges["eventbus_consumer_pending"].labels(listener).set(pending)
        gauges["eventbus_consumer_ack_pending"].labels(listener).set(ack_pending)
        gauges["eventbus_consumer_redelivered"].labels(listener).set(redelivered)

    def set_loop_lag(self, seconds: float) -> None:
        """Show by how much the event loop is late."""
        self._loop_lag.set(seconds)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics and their content type, in what an ``Accept`` header prefers.

        Exemplars are in OpenMetrics only. Safe to call from any thread.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _received(self, one: Received) -> None:
        pair = self._pair(one.name, one.listener)
        pair.received.inc()
        if one.redelivered:
            pair.redelivered.inc()
        self._listener(one.listener).in_flight.inc()

    def _settled(self, one: Settled) -> None:
        pair, listener = self._pair(one.name, one.listener), self._listener(one.listener)
        listener.in_flight.dec()
        pair.outcomes[one.outcome].inc()
        exemplar = _exemplar(one.trace)
        if one.duration > 0:
            pair.duration.observe(one.duration, exemplar)
        if one.outcome is Outcome.OK and one.end_to_end is not None:
            # Clocks of two machines differ; a negative time would look like a counter reset.
            pair.end_to_end.observe(max(0.0, one.end_to_end), exemplar)
        if one.reason is not None:
            pair.reasons[one.reason].inc()
        if one.outcome in _FINAL:
            listener.attempts.observe(one.attempt)
            if one.redrive:
                listener.redriven[one.outcome].inc()

    def _emitted(self, one: Emitted) -> None:
        emits = self._emits_of(one.name, one.driver)
        emits.outcomes["duplicate" if one.duplicate else "ok"].inc()
        emits.duration.observe(one.duration, _exemplar(one.trace))

    def _emit_failed(self, one: EmitFailed) -> None:
        outcome = "unknown" if isinstance(one.error, EmitUnknown) else "failed"
        self._emits_of(one.name, one.driver).outcomes[outcome].inc()

    def _returned(self, one: Returned) -> None:
        listener = self._listener(one.listener)
        listener.in_flight.dec()
        listener.returned.inc()

    def _stuck(self, one: Stuck) -> None:
        listener = self._listener(one.listener)
        listener.in_flight.dec()
        listener.stuck.inc()

    def _connect(self, one: Connected) -> None:
        self._connected.set(1)
        if one.again:
            self._reconnects.inc()

    def _disconnect(self, _: Disconnected) -> None:
        self._connected.set(0)

    def _recovered(self, one: ConsumerRecovered) -> None:
        counter = self._all.counters["eventbus_consumer_recovered_total"]
        counter.labels(one.durable.partition("__")[2] or one.durable).inc()

    def _breaker(self, one: BreakerChanged) -> None:
        gauge = self._all.gauges["eventbus_breaker_state"].labels(one.listener)
        gauge.set(_BREAKER[one.state])

    def _durable(self, one: DurableMeasured) -> None:
        state, gauges = one.durable, self._all.gauges
        self.set_consumer(
            one.listener,
            pending=state.pending,
            ack_pending=state.unsettled,
            redelivered=state.redelivered,
        )
        gauges["eventbus_paused"].labels(one.listener).set(state.paused)
        oldest = gauges["eventbus_oldest_unread_seconds"].labels(one.listener)
        oldest.set(max(0.0, one.oldest_unread or 0.0))

    def _durables(self, one: DurablesChecked) -> None:
        self._all.gauges["eventbus_unattended_durables"].set(len(one.unattended))
        self._all.gauges["eventbus_aging_durables"].set(len(one.aging))

    def _stream(self, one: StreamMeasured) -> None:
        which = "later" if one.later else "stream"
        self._all.gauges[f"eventbus_{which}_bytes"].set(one.fill.bytes)
        self._all.gauges[f"eventbus_{which}_limit_bytes"].set(one.fill.limit or math.inf)

    def _relayed(self, one: Relayed) -> None:
        # Its name is that of a class of the service that emitted it, so it is bounded.
        self._all.counters["eventbus_relayed_total"].labels(one.name).inc()
        waited = self._all.histograms["eventbus_outbox_wait_seconds"].labels(one.name)
        waited.observe(one.waited, _exemplar(one.trace))

    def _outbox(self, one: OutboxMeasured) -> None:
        gauges = self._all.gauges
        gauges["eventbus_outbox_pending"].set(one.pending)
        gauges["eventbus_outbox_oldest_seconds"].set(one.oldest)
        gauges["eventbus_outbox_quarantined"].set(one.quarantined)

    # Children are looked up once and kept: `labels()` costs more than the increment.

    def _pair(self, name: str, listener: str) -> "_Pair":
        pair = self._pairs.get((name, listener))
        if pair is None:
            # An unknown name isn't kept as a key: there is no end of them.
            event = name if self._known(name) else UNKNOWN
            pair = self._pairs.get((event, listener)) or self._all.pair(event, listener)
            self._pairs[event, listener] = pair
        return pair

    def _listener(self, listener: str) -> "_Listener":
        found = self._listeners.get(listener)
        if found is None:
            found = self._listeners[listener] = self._all.listener(listener)
        return found

    def _emits_of(self, name: str, driver: str) -> "_Emits":
        # The name of an emit is that of a class, so it is bounded by the code.
        found = self._emits.get((name, driver))
        if found is None:
            found = self._emits[name, driver] = self._all.emits(name, driver)
        return found


@dataclass(frozen=True, slots=True)
class _Emits:
    outcomes: Mapping[str, Counter]
    duration: Histogram


@dataclass(frozen=True, slots=True)
class _Pair:
    received: Counter
    redelivered: Counter
    outcomes: Mapping[Outcome, Counter]
    reasons: Mapping[Reason, Counter]
    duration: Histogram
    end_to_end: Histogram


@dataclass(frozen=True, slots=True)
class _Listener:
    in_flight: Gauge
    attempts: Histogram
    redriven: Mapping[Outcome, Counter]
    returned: Counter
    stuck: Counter


@dataclass(frozen=True, slots=True)
class _All:
    """The metrics by name, and the children of one label set together."""

    counters: Mapping[str, Counter]
    histograms: Mapping[str, Histogram]
    gauges: Mapping[str, Gauge]

    def emits(self, event: str, driver: str) -> _Emits:
        emitted = self.counters["eventbus_emitted_total"]
        return _Emits(
            outcomes={one: emitted.labels(event, driver, one) for one in _EMIT_OUTCOMES},
            duration=self.histograms["eventbus_emit_duration_seconds"].labels(event, driver),
        )

    def pair(self, event: str, listener: str) -> _Pair:
        counters, histograms = self.counters, self.histograms
        processed = counters["eventbus_processed_total"]
        dead = counters["eventbus_dead_letters_total"]
        return _Pair(
            received=counters["eventbus_received_total"].labels(event, listener),
            redelivered=counters["eventbus_redeliveries_total"].labels(event, listener),
            outcomes={one: processed.labels(event, listener, one.value) for one in Outcome},
            reasons={one: dead.labels(event, listener, one.value) for one in Reason},
            duration=histograms["eventbus_listener_duration_seconds"].labels(event, listener),
            end_to_end=histograms["eventbus_end_to_end_seconds"].labels(event, listener),
        )

    def listener(self, listener: str) -> _Listener:
        redriven = self.counters["eventbus_redriven_total"]
        return _Listener(
            in_flight=self.gauges["eventbus_in_flight"].labels(listener),
            attempts=self.histograms["eventbus_attempts"].labels(listener),
            redriven={one: redriven.labels(listener, one.value) for one in _FINAL},
            returned=self.counters["eventbus_returned_total"].labels(listener),
            stuck=self.counters["eventbus_stuck_total"].labels(listener),
        )


def _exemplar(traceparent: str) -> dict[str, str] | None:
    """Return the trace to show with a measurement; a trace that isn't recorded leads nowhere."""
    if not traceparent or not sampled(traceparent):
        return None
    trace = trace_id(traceparent)
    return None if trace is None else {"trace_id": trace}


def _version() -> str:
    try:
        return metadata.version("eventbus")
    except metadata.PackageNotFoundError:
        return "unknown"
