"""Spans are read from the real SDK's in-memory exporter; each test has a provider of its own."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from structlog.contextvars import get_contextvars

from eventbus.drivers.base import Receipt
from eventbus.envelope import Envelope
from eventbus.errors import (
    Discard,
    EmitUnknown,
    ListenerTimeoutError,
    Reject,
    RetryLater,
    SettingsError,
    error_type,
)
from eventbus.middleware.base import Context
from eventbus.settings import Settings
from eventbus.telemetry import tracing
from eventbus.telemetry.context import active_span, sampled, trace_id
from eventbus.telemetry.exporting import WholeSpans
from eventbus.telemetry.logs import LogContext
from eventbus.telemetry.provider import OwnProvider
from eventbus.telemetry.quickspan import QuickSpans
from eventbus.telemetry.spans import SCOPE, ConsumeTracing, EmitTracing
from eventbus.telemetry.tracing import tracing_wanted

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=1", "baggage": "team=a"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{SPAN}-00"}


class Traces:
    """A provider, and the spans that ended in it."""

    def __init__(self, sampler: Sampler | None = None, *, quick: bool = False) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = OwnProvider(sampler=sampler or ParentBased(ALWAYS_ON))
        processor = SimpleSpanProcessor(WholeSpans(self.exporter))
        self.provider.export_to(processor)
        self.quick = QuickSpans(self.provider, processor, SCOPE) if quick else None

    def emit(self, subject: Callable[[str], str] = str) -> EmitTracing:
        return EmitTracing(self.provider, subject, self.quick)

    def consume(self) -> ConsumeTracing:
        return ConsumeTracing(self.provider, self.quick)

    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def one(self) -> ReadableSpan:
        (span,) = self.spans()
        return span


class Sent:
    """The end of an emit chain; keeps what arrived there."""

    def __init__(self, error: Exception | None = None) -> None:
        self.envelope: Envelope | None = None
        self.error = error

    async def __call__(self, envelope: Envelope) -> Receipt:
        self.envelope = envelope
        if self.error is not None:
            raise self.error
        return Receipt(envelope.id, "EVENTS", 1)

    @property
    def trace(self) -> dict[str, str]:
        assert self.envelope is not None, "nothing was sent"
        return dict(self.envelope.trace)


async def nothing(context: Context) -> None:
    """Handle nothing."""


def raising(error: BaseException) -> Callable[[Context], object]:
    async def listener(context: Context) -> None:
        raise error

    return listener


@pytest.fixture(params=["sdk", "quick"])
def traces(request: pytest.FixtureRequest) -> Traces:
    return Traces(quick=request.param == "quick")


# Emitting


async def test_an_emit_is_a_producer_span_whose_context_travels_with_the_event(
    traces: Traces, make_envelope
):
    sent = Sent()

    receipt = await traces.emit("events.{}".format)(make_envelope(), sent)

    span = traces.one()
    assert receipt.stream == "EVENTS"
    assert (span.name, span.kind) == ("send user.created", SpanKind.PRODUCER)
    assert dict(span.attributes) == {
        "messaging.system": "nats",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "events.user.created",
        "messaging.destination.template": "user.created",
        "messaging.message.id": "id-1",
        "messaging.message.conversation_id": "c-1",
        "messaging.message.body.size": len(make_envelope().body),
        "eventbus.event.version": 1,
    }
    traceparent = sent.trace["traceparent"]
    assert trace_id(traceparent) == f"{span.context.trace_id:032x}"
    assert traceparent.split("-")[2] == f"{span.context.span_id:016x}"
    assert sampled(traceparent)


async def test_an_emit_changes_nothing_else_of_the_envelope(traces: Traces, make_envelope):
    sent = Sent()

    await traces.emit()(make_envelope(), sent)

    assert replace(sent.envelope, trace={}) == make_envelope()


async def test_an_emit_continues_the_trace_of_its_scope(traces: Traces, make_envelope):
    sent = Sent()

    await traces.emit()(make_envelope(SAMPLED), sent)

    span = traces.one()
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert sent.trace["tracestate"] == "vendor=1"
    assert sent.trace["baggage"] == "team=a"


async def test_the_active_span_is_a_closer_parent_than_the_scope(traces: Traces, make_envelope):
    sent = Sent()
    tracer = traces.provider.get_tracer("app")

    with tracer.start_as_current_span("request") as request:
        await traces.emit()(make_envelope(SAMPLED), sent)

    send = traces.spans()[0]
    assert send.parent.span_id == request.get_span_context().span_id
    assert send.context.trace_id == request.get_span_context().trace_id
    assert sent.trace["baggage"] == "team=a"


async def test_baggage_that_the_application_set_travels(traces: Traces, make_envelope):
    sent = Sent()
    token = otel.attach(baggage.set_baggage("tenant", "acme"))

    await traces.emit()(make_envelope(), sent)

    otel.detach(token)
    assert sent.trace["baggage"] == "tenant=acme"


async def test_an_emit_that_fails_is_an_error_by_its_code(traces: Traces, make_envelope):
    error = EmitUnknown(name="user.created", id="id-1", after=15.0, tries=8)

    with pytest.raises(EmitUnknown):
        await traces.emit()(make_envelope(), Sent(error))

    span = traces.one()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "driver.emit_unknown"
    assert [event.name for event in span.events] == ["exception"]


async def test_an_emit_in_an_unsampled_trace_has_no_span_and_stays_in_it(
    traces: Traces, make_envelope
):
    sent = Sent()

    await traces.emit()(make_envelope(UNSAMPLED), sent)

    assert traces.spans() == ()
    assert sent.trace == UNSAMPLED


async def test_an_unsampled_root_is_known_to_be_unsampled_further_on(make_envelope):
    traces = Traces(ParentBased(ALWAYS_OFF), quick=True)
    sent = Sent()

    await traces.emit()(make_envelope(), sent)

    assert traces.spans() == ()
    assert trace_id(sent.trace["traceparent"]) is not None
    assert not sampled(sent.trace["traceparent"])


async def test_a_sampler_that_does_not_follow_the_parent_is_asked(make_envelope, make_context):
    traces = Traces(ALWAYS_ON, quick=True)

    await traces.emit()(make_envelope(UNSAMPLED), Sent())
    await traces.consume()(make_context(UNSAMPLED), nothing)

    assert [span.name for span in traces.spans()] == ["send user.created", "process user.created"]


# Handling


async def test_a_run_is_a_consumer_span_under_the_emit_and_linked_to_it(
    traces: Traces, make_context
):
    await traces.consume()(make_context(SAMPLED), nothing)

    span = traces.one()
    assert (span.name, span.kind) == ("process user.created", SpanKind.CONSUMER)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert [link.context.span_id for link in span.links] == [span.parent.span_id]
    assert dict(span.attributes) == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "events.user.created",
        "messaging.destination.template": "user.created",
        "messaging.consumer.group.name": "notification__send_welcome",
        "messaging.message.id": "id-1",
        "messaging.message.conversation_id": "c-1",
        "eventbus.listener": "send_welcome",
        "eventbus.attempt": 2,
        "eventbus.event.version": 1,
    }


async def test_an_event_without_a_trace_begins_one(traces: Traces, make_context):
    await traces.consume()(make_context({"traceparent": "garbage"}), nothing)

    span = traces.one()
    assert span.parent is None
    assert len(span.links) == 0


async def test_a_span_that_is_active_where_the_event_is_delivered_is_not_the_parent(
    traces: Traces, make_context
):
    with traces.provider.get_tracer("app").start_as_current_span("emitter"):
        await traces.consume()(make_context(), nothing)

    assert traces.spans()[0].parent is None


async def test_what_a_listener_emits_is_under_its_run(traces: Traces, make_context, make_envelope):
    sent = Sent()

    async def listener(context: Context) -> None:
        await traces.emit()(make_envelope(SAMPLED), sent)

    await traces.consume()(make_context(SAMPLED), listener)

    send, process = traces.spans()
    assert send.parent.span_id == process.context.span_id
    assert trace_id(sent.trace["traceparent"]) == TRACE


async def test_a_listener_sees_the_baggage_and_the_logs_see_the_span(traces: Traces, make_context):
    seen: list[object] = []

    async def listener(context: Context) -> None:
        seen.extend((baggage.get_baggage("team"), active_span()))

    await traces.consume()(make_context(SAMPLED), listener)

    span = traces.one()
    assert seen == ["a", (TRACE, f"{span.context.span_id:016x}", True)]
    assert active_span() is None


async def test_log_lines_of_a_run_that_began_a_trace_carry_it(traces: Traces, make_context):
    bound: list[object] = []

    async def listener(context: Context) -> None:
        bound.append(get_contextvars()["trace_id"])

    async def logged(context: Context) -> None:
        await LogContext()(context, listener)

    await traces.consume()(make_context(), logged)

    assert bound == [f"{traces.one().context.trace_id:032x}"]


async def test_an_unsampled_event_has_no_span_and_the_listener_stays_in_its_trace(
    traces: Traces, make_context
):
    seen: list[object] = []

    async def listener(context: Context) -> None:
        seen.append(active_span())
        with traces.provider.get_tracer("app").start_as_current_span("query"):
            pass

    await traces.consume()(make_context(UNSAMPLED), listener)

    assert seen == [(TRACE, SPAN, False)]
    assert traces.spans() == ()


@pytest.mark.parametrize(
    ("error", "kind", "stack"),
    [
        (ValueError("bad"), "ValueError", True),
        (
            ListenerTimeoutError(listener="send_welcome", limit=5),
            "listener.timeout",
            True,
        ),
        (Reject("not ours"), "eventbus.errors.Reject", False),
    ],
)
async def test_a_run_that_fails_is_an_error(
    traces: Traces, make_context, error: Exception, kind: str, stack: bool
):
    with pytest.raises(type(error)):
        await traces.consume()(make_context(SAMPLED), raising(error))

    span = traces.one()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == kind
    assert bool(span.events) == stack


@pytest.mark.parametrize("signal", [RetryLater(5), Discard("seen")])
async def test_what_the_listener_chose_is_no_error(
    traces: Traces, make_context, signal: Exception
):
    with pytest.raises(type(signal)):
        await traces.consume()(make_context(SAMPLED), raising(signal))

    span = traces.one()
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes["eventbus.signal"] == type(signal).__name__


async def test_a_cancelled_run_ends_its_span_and_is_no_error(traces: Traces, make_context):
    with pytest.raises(asyncio.CancelledError):
        await traces.consume()(make_context(SAMPLED), raising(asyncio.CancelledError()))

    assert traces.one().status.status_code is StatusCode.UNSET
    assert active_span() is None


# Whether to trace


@pytest.fixture
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [one for one in os.environ if one.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_tracing_is_wanted_where_an_endpoint_is_set(no_otel_variables: pytest.MonkeyPatch):
    without = tracing_wanted(Settings())
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    general = tracing_wanted(Settings())
    no_otel_variables.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1")
    own = tracing_wanted(Settings())

    assert (without, general, own) == (False, True, True)


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_the_usual_ways_to_turn_tracing_off_do(
    no_otel_variables: pytest.MonkeyPatch, name: str, value: str
):
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    no_otel_variables.setenv(name, value)

    assert tracing_wanted(Settings()) is False


def test_the_setting_wins_over_what_is_found(no_otel_variables: pytest.MonkeyPatch):
    off_anyway = tracing_wanted(Settings(tracing="on"))
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")

    assert off_anyway is True
    assert tracing_wanted(Settings(tracing="off")) is False


def test_an_exporter_for_another_protocol_is_refused_with_the_remedy(
    no_otel_variables: pytest.MonkeyPatch,
):
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    with pytest.raises(SettingsError, match="http/protobuf"):
        tracing.setup("user")


def test_a_missing_exporter_is_a_settings_error_that_names_the_extra(
    no_otel_variables: pytest.MonkeyPatch,
):
    no_otel_variables.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    # None in sys.modules is how Python marks a module that can't be imported.
    no_otel_variables.setitem(
        sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )

    with pytest.raises(SettingsError, match=r"pip install 'eventbus\[otlp\]'"):
        tracing.setup("user")
    # Nothing was installed on the way.
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def in_a_process(code: str) -> str:
    """Run code in a process of its own: it has one global tracer provider, and its own modules."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_asking_whether_to_trace_loads_nothing():
    loaded = in_a_process(
        "import sys\n"
        "from eventbus.settings import Settings\n"
        "import eventbus.telemetry.signals\n"
        "from eventbus.telemetry.context import active_span\n"
        "from eventbus.telemetry.tracing import tracing_wanted\n"
        "tracing_wanted(Settings()), active_span()\n"
        "heavy = ('opentelemetry', 'prometheus_client', 'structlog', 'nats')\n"
        "print([one for one in heavy if one in sys.modules])\n"
    )

    assert loaded == "[]\n"


def test_the_provider_of_the_application_is_found_used_and_left_alone():
    printed = in_a_process(
        "import asyncio, types\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.resources import Resource\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from eventbus.settings import Settings\n"
        "from eventbus.telemetry.tracing import setup, tracing_wanted\n"
        "async def listener(context):\n"
        "    span = trace.get_current_span()\n"
        "    print(span.name, span.resource.attributes['service.name'])\n"
        "before = tracing_wanted(Settings())\n"
        "ours = TracerProvider(resource=Resource({'service.name': 'app'}))\n"
        "trace.set_tracer_provider(ours)\n"
        "wanted = tracing_wanted(Settings())\n"
        "tracing = setup('user')\n"
        "fields = dict.fromkeys(('service', 'listener', 'id', 'correlation_id', 'subject'), '-')\n"
        "context = types.SimpleNamespace(name='a.b', trace={}, attempt=1, version=1, **fields)\n"
        "asyncio.run(tracing.consume(context, listener))\n"
        "tracing.shutdown()\n"
        "recording = trace.get_tracer('app').start_span('x').is_recording()\n"
        "print(before, wanted, trace.get_tracer_provider() is ours, recording)\n"
    )

    assert printed == "process a.b app\nFalse True True True\n"


def test_without_an_endpoint_there_are_trace_ids_and_no_exporter():
    printed = in_a_process(
        "from opentelemetry import trace\n"
        "from eventbus.settings import Settings\n"
        "from eventbus.telemetry.tracing import setup, tracing_wanted\n"
        "tracing = setup('user')\n"
        "provider = trace.get_tracer_provider()\n"
        "print(provider.resource.attributes['service.name'])\n"
        "print(provider._active_span_processor._span_processors)\n"
        # Ours isn't the application's: it doesn't turn tracing on by itself.
        "print(tracing_wanted(Settings()))\n"
    )

    assert printed == "user\n()\nFalse\n"


# Small things


@pytest.mark.parametrize(
    ("traceparent", "id", "recorded"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE, True),
        (f"00-{TRACE}-{SPAN}-00", TRACE, False),
        (f"00-{TRACE}-{SPAN}-03", TRACE, True),
        (f"01-{TRACE}-{SPAN}-01-later", TRACE, True),
        (f"00-{TRACE}-{SPAN}-zz", TRACE, False),
        ("", None, False),
        ("garbage", None, False),
    ],
)
def test_a_traceparent_is_read(traceparent: str, id: str | None, recorded: bool):
    assert trace_id(traceparent) == id
    assert sampled(traceparent) == recorded


def test_an_error_is_named_by_its_code_or_its_class():
    class MailError(Exception):
        pass

    assert error_type(ListenerTimeoutError(listener="x", limit=1)) == "listener.timeout"
    assert error_type(ValueError("x")) == "ValueError"
    assert error_type(MailError()).endswith(
        "test_tracing.test_an_error_is_named_by_its_code_or_its_class.<locals>.MailError"
    )
