"""Logs: structlog and stdlib logging in one format, and one wide line per thing that happened.

Payloads and keys are never logged; they may hold personal data.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

import structlog
from structlog.contextvars import bind_contextvars, merge_contextvars, reset_contextvars
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger
from typing_extensions import override

from eventbus.delivery import Outcome, Reason
from eventbus.drivers.base import (
    Connected,
    ConsumerRecovered,
    DelayedLost,
    Disconnected,
    TopologyChanged,
)
from eventbus.errors import Signal, error_type
from eventbus.headers import render_time
from eventbus.middleware.base import CallNext, Context
from eventbus.telemetry import alarms
from eventbus.telemetry.context import active_span, trace_id
from eventbus.telemetry.signals import (
    Cancelled,
    EmitFailed,
    Emitted,
    FailedHookRaised,
    Happened,
    Returned,
    Settled,
    Stopped,
    Stuck,
    TickFailed,
)

if TYPE_CHECKING:
    from eventbus.settings import Settings

__all__ = ("LogContext", "LogObserver", "configure")

_Fields = dict[str, object]

_OK = Outcome.OK
_FOREIGN = ("uvicorn", "uvicorn.error", "uvicorn.access")
"""Loggers that bring their own handlers."""
_FORMATTING = ("asctime", "color_message", "message")
"""What other formatters leave on a record; no fields."""


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that `configure` installs, so that it can find it again."""


def configure(settings: "Settings", *, stream: TextIO | None = None) -> None:
    """Send the logs of structlog and of the stdlib to ``stream`` (stderr), in one format.

    JSON lines, or columns on a terminal, by ``log_format``; from ``log_level`` up. Handlers that
    write to stdout and stderr already are replaced, so that nothing is printed twice; others stay.
    Calling it again replaces what it did before.
    """
    out: TextIO = sys.stderr if stream is None else stream
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    console = settings.log_format == "console" or (settings.log_format == "auto" and out.isatty())
    chain = _chain(console)
    structlog.configure(
        processors=[*chain, ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(out)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[ExtraAdder(), _as_line, *chain],
            processors=[
                ProcessorFormatter.remove_processors_meta,
                *_renderers(console, colors=out.isatty()),
            ],
        )
    )
    _install(handler, level)


class LogContext:
    """Binds the event to every line that a listener logs while it runs, by structlog or stdlib.

    The fields are ``event_name, event_id, service, listener, attempt, correlation_id`` and
    ``trace_id``. Put it inside of the tracing middleware.
    """

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain with the fields bound."""
        span = active_span()
        traced = span.trace_id if span else trace_id(context.trace.get("traceparent", ""))
        fields: _Fields = {
            "event_name": context.name,
            "event_id": context.id,
            "service": context.service,
            "listener": context.listener,
            "attempt": context.attempt,
            "correlation_id": context.correlation_id,
        }
        if traced is not None:
            fields["trace_id"] = traced
        tokens = bind_contextvars(**fields)
        try:
            await call_next(context)
        finally:
            reset_contextvars(**tokens)


class LogObserver:
    """Logs one wide line for each thing that happened.

    A delivery settled ``ok`` and an emit are ``debug``, since there may be hundreds a second. A
    retry is a ``warning``, one that the listener asked for is ``info``, a dead letter is an
    ``error`` with the stack. The fields are in ``extra``, for whatever formatter is installed.

    Args:
        service: Whose observer it is; named in lines about emits and connections.
        logger: Where it logs; ``eventbus`` where None.
    """

    def __init__(self, service: str = "", *, logger: logging.Logger | None = None) -> None:
        self._service = service
        self._log = logger or logging.getLogger("eventbus")
        self.takes = frozenset(_LINES)
        """What it logs a line for."""

    def __call__(self, happened: Happened) -> None:
        """Log it, where its level is logged."""
        line = _LINES.get(type(happened))
        if line is None:
            return
        name, level_of, fields_of = line
        level = level_of(happened)
        # Before the fields are made: most deliveries are fine, and most processes log from info.
        if not self._log.isEnabledFor(level):
            return
        given = {"service": self._service, **fields_of(happened)}
        fields = {key: one for key, one in given.items() if one not in (None, "")}
        self._log.log(level, _Line(name, fields), extra=fields, exc_info=_stack(happened))


class _Line:
    """The message of a wide line; a plain formatter, which knows no fields, prints them too."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Mapping[str, object]) -> None:
        self.name = name
        self.fields = fields

    @override
    def __str__(self) -> str:
        return " ".join((self.name, *(f"{key}={one!r}" for key, one in self.fields.items())))


def _chain(console: bool) -> list[Processor]:
    """Return what every line goes through, ours and others'."""
    stamp = structlog.processors.TimeStamper(
        fmt="%H:%M:%S" if console else "iso", utc=not console, key="timestamp"
    )
    return [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        _add_span,
        merge_contextvars,
        stamp,
        structlog.processors.StackInfoRenderer(),
    ]


def _renderers(console: bool, *, colors: bool) -> list[Processor]:
    if console:
        # rich's tracebacks are slow, and print local variables: payloads.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    return [
        structlog.processors.format_exc_info,
        _ordered,
        structlog.processors.JSONRenderer(),
    ]


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    for other in list(root.handlers):
        if isinstance(other, _Handler) or _prints(other):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _FOREIGN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _prints(handler: logging.Handler) -> bool:
    """Tell whether it is what ``basicConfig`` installs, not a subclass such as pytest's."""
    kind: type = type(handler)
    return kind is logging.StreamHandler and (
        getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
    )


def _as_line(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    """Take a record of the stdlib as what it is."""
    message = event_dict["_record"].msg
    if isinstance(message, _Line):
        event_dict["event"] = message.name
    for key in _FORMATTING:
        event_dict.pop(key, None)
    return event_dict


def _add_span(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    """Add the active span, where the line isn't about another trace."""
    span = active_span()
    if span is not None and event_dict.setdefault("trace_id", span.trace_id) == span.trace_id:
        event_dict.setdefault("span_id", span.span_id)
    return event_dict


def _ordered(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
    """Put first what a human looks for first."""
    first = {key: event_dict.pop(key) for key in ("timestamp", "level", "event")}
    return first | dict(event_dict)


def _settled_level(settled: Settled) -> int:
    if settled.outcome is _OK:  # nearly all of them
        return logging.DEBUG
    match settled.outcome:
        case Outcome.DEAD:
            return logging.ERROR
        case Outcome.RETRY | Outcome.PARK | Outcome.RAISED:
            return logging.INFO if isinstance(settled.error, Signal) else logging.WARNING
        case Outcome.DROPPED:
            return logging.INFO
        case _:
            return logging.DEBUG


def _settled(one: Settled) -> _Fields:
    return {
        "event_name": one.name,
        "event_id": one.id,
        "service": one.service,
        "listener": one.listener,
        "outcome": one.outcome.value,
        "reason": one.reason.value if one.reason else None,
        "detail": one.detail,
        "attempt": one.attempt,
        "max_attempts": one.attempts,
        "delay_ms": _ms(one.delay),
        "duration_ms": _ms(one.duration),
        "e2e_ms": _ms(one.end_to_end),
        **_error(one.error),
        "correlation_id": one.correlation_id,
        "causation_id": one.causation_id,
        "trace_id": trace_id(one.trace),
        "stream": one.stream,
        "seq": one.sequence or None,
        "subject": one.subject,
        "tags": list(one.tags) or None,
    }


def _emitted(one: Emitted) -> _Fields:
    return {
        "event_name": one.name,
        "event_id": one.id,
        "driver": one.driver,
        "duration_ms": _ms(one.duration),
        "size": one.size,
        "duplicate": one.duplicate,
        "tags": list(one.tags) or None,
        **({"due": render_time(one.due)} if one.due else {}),
        "correlation_id": one.correlation_id,
        "trace_id": trace_id(one.trace),
    }


def _emit_failed(one: EmitFailed) -> _Fields:
    return {
        "event_name": one.name,
        "event_id": one.id,
        "driver": one.driver,
        "duration_ms": _ms(one.duration),
        **_error(one.error),
        "correlation_id": one.correlation_id,
        "trace_id": trace_id(one.trace),
    }


def _place(one: Returned | Stuck | FailedHookRaised) -> _Fields:
    return {"event_name": one.name, "service": one.service, "listener": one.listener}


def _error(error: Exception | None) -> _Fields:
    if error is None:
        return {}
    return {"error_type": error_type(error), "error_message": str(error)}


def _stack(happened: Happened) -> Exception | None:
    """Return the error whose stack helps: of a last attempt, or of what was to be told of it."""
    if isinstance(happened, Settled) and happened.reason in (Reason.EXCEPTION, Reason.TIMEOUT):
        return happened.error
    return happened.error if isinstance(happened, FailedHookRaised) else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _at(level: int) -> Callable[[object], int]:
    return lambda _: level


# Names are public: past tense, dotted, stable. What isn't listed is counted and not logged.
_LINES: dict[type, tuple[str, Callable[[Any], int], Callable[[Any], _Fields]]] = {
    **alarms.LINES,
    Settled: ("delivery.settled", _settled_level, _settled),
    Emitted: ("event.emitted", _at(logging.DEBUG), _emitted),
    EmitFailed: ("emit.failed", _at(logging.WARNING), _emit_failed),
    Cancelled: (
        "event.cancelled",
        _at(logging.INFO),
        lambda one: {"event_id": one.id, "source": one.source},
    ),
    Returned: ("delivery.returned", _at(logging.DEBUG), _place),
    Stuck: (
        "delivery.stuck",
        _at(logging.WARNING),
        lambda one: {**_place(one), **_error(one.error)},
    ),
    FailedHookRaised: (
        "failed_hook.raised",
        _at(logging.ERROR),
        lambda one: {"event_id": one.id, **_place(one), **_error(one.error)},
    ),
    TickFailed: (
        "tick.failed",
        _at(logging.ERROR),
        lambda one: {"service": one.service, "recurring": one.recurring, **_error(one.error)},
    ),
    Stopped: (
        "service.stopped",
        lambda one: logging.WARNING if one.cancelled else logging.INFO,
        lambda one: {"service": one.service, "cancelled": one.cancelled},
    ),
    Connected: (
        "connection.established",
        _at(logging.INFO),
        lambda one: {"server": one.server, "server_version": one.version, "again": one.again},
    ),
    Disconnected: (
        "connection.lost",
        _at(logging.WARNING),
        lambda one: {"problem": one.problem},
    ),
    ConsumerRecovered: (
        "consumer.recovered",
        _at(logging.WARNING),
        lambda one: {"durable": one.durable, "problem": one.problem},
    ),
    DelayedLost: (
        "delayed.lost",
        _at(logging.ERROR),
        lambda one: {
            "event_name": one.name,
            "event_id": one.id,
            "due": render_time(one.at),
            "problem": one.problem,
        },
    ),
    TopologyChanged: (
        "topology.changed",
        _at(logging.INFO),
        lambda one: {"thing": one.thing, "change": one.change},
    ),
}
