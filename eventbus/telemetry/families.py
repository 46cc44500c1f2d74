"""What a process shows of itself: the name, help, labels and buckets of each family of metrics.

Labels are few-valued: names of declared events and of listeners, never subjects, ids or keys.
Units are base units.
"""

from collections.abc import Mapping, Sequence

__all__ = ("COUNTERS", "GAUGES", "HISTOGRAMS", "NAMES")

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_ATTEMPTS = (1, 2, 3, 4, 5, 8, 12, 20)

COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
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
    "eventbus_delayed_lost_total": (
        "Delayed events of the driver sync that nobody handled at their time",
        ("event",),
    ),
    "eventbus_relayed_total": ("Events of the outbox that the stream has", ("event",)),
    "eventbus_relay_refused_total": ("Tries of the outbox that were refused", ("event",)),
    "eventbus_outbox_failed_total": ("Events of the outbox that can't go", ("event",)),
    "eventbus_ticks_failed_total": ("Ticks of recurring events that couldn't be stored", ()),
    "eventbus_purged_total": ("Handled events purged to make room", ()),
    "eventbus_reconnects_total": ("Connections that came back", ()),
    "eventbus_consumer_recovered_total": ("Pull loops that came back", ("listener",)),
}
HISTOGRAMS: Mapping[str, tuple[str, tuple[str, ...], Sequence[float]]] = {
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
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
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
        *COUNTERS,
        *GAUGES,
        *(f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")),
        "eventbus_build_info",
        *_PROCESS,
    )
)
"""Every series that a process exposes; a dashboard or rule that names another one is wrong."""
