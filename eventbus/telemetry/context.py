"""What logs, metrics and spans show of a trace; loads no OpenTelemetry."""

import sys
from typing import NamedTuple

__all__ = ("ActiveSpan", "active_span", "sampled", "trace_id")

_TRACEPARENT = 55
"""Characters of ``00-<trace id>-<span id>-<flags>``."""
_ODD = frozenset("13579bdfBDF")
"""The last digit of flags that have the first one set."""


class ActiveSpan(NamedTuple):
    """The ids of the span that is active in the running task, in hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool


def active_span() -> ActiveSpan | None:
    """Return the active span's ids; None without one, and at no cost without OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return ActiveSpan(f"{span.trace_id:032x}", f"{span.span_id:016x}", span.trace_flags.sampled)


def trace_id(traceparent: str) -> str | None:
    """Return the trace id of a W3C ``traceparent``; None where it isn't one."""
    parts = traceparent.split("-")
    valid = len(traceparent) >= _TRACEPARENT and len(parts) >= 4 and len(parts[1]) == 32
    return parts[1] if valid else None


def sampled(traceparent: str) -> bool:
    """Tell whether a W3C ``traceparent`` says that its trace is recorded."""
    return traceparent[_TRACEPARENT - 1 : _TRACEPARENT] in _ODD
