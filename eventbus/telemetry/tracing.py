"""Whether to trace, and the tracer provider that exports.

Loads OpenTelemetry only in `setup`; without tracing an emit or a delivery runs none of it.
"""

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventbus.errors import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import TracerProvider

    from eventbus.settings import Settings
    from eventbus.telemetry.spans import ConsumeTracing, EmitTracing

__all__ = ("Tracing", "setup", "tracing_wanted")

FLUSH_TIME = 5.0
"""Seconds that `Tracing.shutdown` gives to the spans that aren't exported yet."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_LIMITS = (
    "OTEL_ATTRIBUTE_",
    "OTEL_EVENT_",
    "OTEL_LINK_",
    "OTEL_SPAN_",
    "OTEL_PYTHON_SDK_INTERNAL_METRICS_",
)
"""Variables about what a span holds, and about counting spans."""
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_log = logging.getLogger(__name__)
_ours: "weakref.WeakSet[TracerProvider]" = weakref.WeakSet()
"""The providers that `setup` made; any other one belongs to the application."""


@dataclass(frozen=True, slots=True)
class Tracing:
    """What `setup` gives: the two middlewares to put outermost, and the end."""

    emit: "EmitTracing"
    consume: "ConsumeTracing"
    shutdown: Callable[[], None]
    """Export what is left and stop; blocks up to 5 s, so call it in a thread. The provider of an
    application is left alone."""


def tracing_wanted(settings: "Settings") -> bool:
    """Tell whether to trace: by the setting, else where an endpoint or a provider is set."""
    if settings.tracing != "auto":
        return settings.tracing == "on"
    if _environment("OTEL_SDK_DISABLED") == "true":
        return False
    return _exporting() or _application_provider() is not None


def setup(
    service: str,
    *,
    subject: Callable[[str], str] = str,
    exporter: "SpanExporter | None" = None,
) -> Tracing:
    """Return the tracing of one service.

    An application's own tracer provider is used as it is. Otherwise the service gets one, which
    exports over OTLP/HTTP where ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set, and which becomes the
    process's if that has none. Sampling, limits and resource are set by the ``OTEL_*`` variables;
    ``service.name`` is the service's unless they say otherwise.

    Args:
        service: The service's name.
        subject: Gives the subject of an event's name, ``messaging.destination.name`` of sends.
        exporter: Where spans go, instead of where the variables say.

    Raises:
        SettingsError: An endpoint is set, and the exporter isn't installed or can't speak its
            protocol.
    """
    from opentelemetry import trace
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from eventbus.telemetry.exporting import BundlingProcessor, WholeSpans
    from eventbus.telemetry.provider import OwnProvider
    from eventbus.telemetry.quickspan import QuickSpans
    from eventbus.telemetry.spans import SCOPE, ConsumeTracing, EmitTracing

    application = _application_provider()
    if application is not None:
        return Tracing(EmitTracing(application, subject), ConsumeTracing(application), _nothing)
    if exporter is None and _exporting():
        exporter = _exporter()
    provider = OwnProvider(resource=_resource(service))
    processor: SpanProcessor | None = None
    if exporter is not None:
        # What the variables say of batches is for the SDK's processor.
        is_told = _limited() or any(name.startswith("OTEL_BSP_") for name in os.environ)
        as_told = BatchSpanProcessor(WholeSpans(exporter)) if is_told else None
        processor = as_told or BundlingProcessor(exporter)
        provider.export_to(processor)
    _ours.add(provider)
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
    quick = None if _limited() else QuickSpans(provider, processor, SCOPE)
    return Tracing(
        EmitTracing(provider, subject, quick),
        ConsumeTracing(provider, quick),
        lambda: _shut_down(provider.shutdown),
    )


def _environment(*names: str) -> str:
    """Return the first of these variables that is set, in lower case."""
    values = (os.environ.get(name, "").strip().lower() for name in names)
    return next((value for value in values if value), "")


def _limited() -> bool:
    """Tell whether spans are to be as only the SDK makes them."""
    return any(name.startswith(_LIMITS) for name in os.environ)


def _exporting() -> bool:
    return bool(_environment(*_ENDPOINTS)) and _environment("OTEL_TRACES_EXPORTER") != "none"


def _application_provider() -> "TracerProvider | None":
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider: TracerProvider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider) or provider in _ours:
        return None
    return provider


def _exporter() -> "SpanExporter":
    protocol = _environment(*_PROTOCOLS) or "http/protobuf"
    if protocol != "http/protobuf":
        raise SettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} isn't supported; set it to http/protobuf, "
            "and the endpoint to the collector's HTTP port, usually 4318"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as exc:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the exporter isn't installed; "
            "run: pip install 'eventbus[otlp]', or set EVENTBUS_TRACING=off"
        ) from exc
    return OTLPSpanExporter()


def _resource(service: str) -> "Resource":
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: service}))
    return resource


def _shut_down(shutdown: Callable[[], None]) -> None:
    # The exporter retries an unreachable collector for longer than a stop may take.
    thread = threading.Thread(target=shutdown, name="eventbus-tracing-shutdown", daemon=True)
    thread.start()
    thread.join(FLUSH_TIME)
    if thread.is_alive():
        _log.warning("spans weren't exported within %g s and are lost", FLUSH_TIME)


def _nothing() -> None:
    """Leave an application's provider to the application."""
