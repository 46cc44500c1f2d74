"""Quick spans are exported as those that OpenTelemetry's SDK makes of the same."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from eventbus.drivers.base import Receipt
from eventbus.envelope import Envelope
from eventbus.middleware.base import Context
from eventbus.telemetry.exporting import WholeSpans
from eventbus.telemetry.provider import OwnProvider
from eventbus.telemetry.quickspan import LIMIT, QuickSpan, QuickSpans
from eventbus.telemetry.spans import SCOPE, ConsumeTracing, EmitTracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
USUAL = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
OTHER = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))


class Both:
    """Two providers, one of which makes quick spans."""

    def __init__(self, sampler: ParentBased | None = None) -> None:
        self.exporters = InMemorySpanExporter(), InMemorySpanExporter()
        self.providers = OwnProvider(sampler=sampler), OwnProvider(sampler=sampler)
        processors = [SimpleSpanProcessor(WholeSpans(one)) for one in self.exporters]
        for provider, processor in zip(self.providers, processors, strict=True):
            provider.export_to(processor)
        self.quick = QuickSpans(self.providers[1], processors[1], SCOPE)
        self.seen: list[Span] = []
        """The spans that were active."""

    async def handle(self, context: Context, listener: Callable[[], None] | None = None) -> None:
        """Run a listener under a span of each."""

        async def run(_: Context) -> None:
            self.seen.append(trace.get_current_span())
            if listener is not None:
                listener()

        for provider, quick in zip(self.providers, (None, self.quick), strict=True):
            try:
                await ConsumeTracing(provider, quick)(context, run)
            except LookupError:
                continue

    async def emit(self, envelope: Envelope) -> list[Mapping[str, str]]:
        """Emit under a span of each; return the headers."""
        sent: list[Mapping[str, str]] = []

        async def publish(one: Envelope) -> Receipt:
            self.seen.append(trace.get_current_span())
            sent.append(one.trace)
            return Receipt(one.id, "EVENTS", 1)

        for provider, quick in zip(self.providers, (None, self.quick), strict=True):
            await EmitTracing(provider, str, quick)(envelope, publish)
        return sent

    def spans(self) -> list[dict[str, object]]:
        """Return the one span of each, without its id and its times."""
        return [told(*one.get_finished_spans()) for one in self.exporters]

    @property
    def are_quick(self) -> list[bool]:
        return [isinstance(one, QuickSpan) for one in self.seen]


def told(span: ReadableSpan) -> dict[str, object]:
    assert span.context is not None
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 <= span.end_time - span.start_time < 60e9
    return {
        "name": span.name,
        "trace": span.context.trace_id if span.parent else None,
        "flags": span.context.trace_flags,
        "kind": span.kind,
        "parent": span.parent,
        "links": [(one.context, dict(one.attributes or {})) for one in span.links],
        "attributes": dict(span.attributes or {}),
        "events": [_event(one.name, dict(one.attributes or {})) for one in span.events],
        "status": (span.status.status_code, span.status.description),
        "resource": span.resource,
        "scope": span.instrumentation_scope and span.instrumentation_scope.name,
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
    }


def _event(name: str, attributes: dict[str, object]) -> tuple[str, dict[str, object]]:
    stack = attributes.pop("exception.stacktrace", "")
    return name, {**attributes, "has stack": "LookupError" in str(stack)}


@pytest.fixture
def both() -> Iterator[Both]:
    yield Both()
    assert not otel.get_current(), "a context was left behind"


@pytest.mark.parametrize("carried", [USUAL, {}, {"traceparent": f"00-{TRACE}-{SPAN}-03"}])
async def test_a_quick_run_is_exported_as_that_of_the_sdk(
    both: Both, make_context, carried: dict[str, str]
):
    await both.handle(make_context(carried))

    sdk, quick = both.spans()
    assert both.are_quick == [False, True]
    assert quick == sdk
    assert quick["kind"] is SpanKind.CONSUMER


@pytest.mark.parametrize("carried", [USUAL, {}])
async def test_a_quick_emit_is_exported_as_that_of_the_sdk(
    both: Both, make_envelope, carried: dict[str, str]
):
    headers = await both.emit(make_envelope(carried))

    sdk, quick = both.spans()
    assert both.are_quick == [False, True]
    assert quick == sdk
    for sent, exporter in zip(headers, both.exporters, strict=True):
        (span,) = exporter.get_finished_spans()
        context = span.context
        flags = f"{int(context.trace_flags):02x}"
        assert sent == {
            "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags}"
        }


async def test_an_emit_under_a_span_of_the_application_is_its_child(both: Both, make_envelope):
    tracer = OwnProvider().get_tracer("app")

    with tracer.start_as_current_span("app"):
        await both.emit(make_envelope({}))

    sdk, quick = both.spans()
    assert both.are_quick == [False, True]
    assert quick == sdk
    assert quick["parent"] is not None


async def test_an_emit_of_a_listener_is_the_child_of_its_quick_run(
    both: Both, make_context, make_envelope
):
    consume, emit = ConsumeTracing(both.providers[1], both.quick), EmitTracing(quick=both.quick)
    inner: list[str] = []

    async def publish(one: Envelope) -> Receipt:
        inner.append(one.trace["traceparent"])
        return Receipt(one.id, "EVENTS", 1)

    async def listener(_: Context) -> None:
        await emit(make_envelope(USUAL), publish)

    await consume(make_context(USUAL), listener)

    send, process = both.exporters[1].get_finished_spans()
    assert send.parent == process.context
    assert inner == [f"00-{TRACE}-{send.context.span_id:016x}-01"]


def _busy() -> None:
    """Do with the active span what a listener may."""
    span = trace.get_current_span()
    span.set_attribute("shop.cart", 3)
    span.set_attributes({"shop.vip": True, "shop.codes": ["a", "b"]})
    span.set_attribute("eventbus.attempt", 99)
    span.set_attribute("nothing", object())  # type: ignore[arg-type] # left out
    span.add_event("paid", {"sum": 3.5})
    span.add_link(OTHER, {"why": "cause"})
    span.add_link(SpanContext(0, 0, is_remote=False))
    span.update_name("process faster")
    span.set_status(StatusCode.UNSET)
    span.set_status(Status(StatusCode.ERROR, "later OK"))
    span.set_status(StatusCode.OK)
    span.set_status(StatusCode.ERROR, "too late")
    raise LookupError("no such cart")


async def test_what_a_listener_adds_to_its_span_is_exported_too(both: Both, make_context):
    await both.handle(make_context(USUAL), _busy)

    sdk, quick = both.spans()
    assert quick == sdk
    assert quick["name"] == "process faster"
    assert [name for name, _ in quick["events"]] == ["paid", "exception"]
    assert quick["attributes"]["shop.codes"] == ("a", "b")


async def test_a_span_that_has_ended_does_not_change_any_more(both: Both, make_context):
    await both.handle(make_context(USUAL))
    before = both.spans()[1]

    span = both.seen[1]
    with pytest.raises(LookupError), trace.use_span(span):
        _busy()
    span.end()

    assert not span.is_recording()
    assert both.spans()[1] == before


async def test_a_span_takes_no_more_than_a_span_of_the_sdk_does(both: Both, make_context):
    def much() -> None:
        span = trace.get_current_span()
        for number in range(2 * LIMIT):
            span.set_attribute(f"a{number}", number)
            span.add_event(f"e{number}")
            span.add_link(OTHER)

    await both.handle(make_context(USUAL), much)

    sdk, quick = both.spans()
    for kind in ("attributes", "events"):
        assert len(quick[kind]) == len(sdk[kind]) == LIMIT
    assert len(quick["links"]) == LIMIT + 1, "its parent, and those"


@pytest.mark.parametrize(
    "carried",
    [
        {"traceparent": "garbage"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"traceparent": f"00-{TRACE}-{SPAN}-00"},
        {**USUAL, "tracestate": "vendor=1"},
        {**USUAL, "baggage": "team=a"},
    ],
)
async def test_what_is_unusual_is_left_to_the_sdk(
    both: Both, make_context, make_envelope, carried: dict[str, str]
):
    await both.handle(make_context(carried))
    sent = await both.emit(make_envelope(carried))

    assert both.are_quick == [False] * 4
    assert sent[0].keys() == sent[1].keys()


async def test_baggage_of_the_application_travels_from_a_quick_provider_too(
    both: Both, make_envelope
):
    token = otel.attach(baggage.set_baggage("team", "a"))

    sent = await both.emit(make_envelope({}))

    otel.detach(token)
    assert [one["baggage"] for one in sent] == ["team=a", "team=a"]


async def test_a_processor_of_the_application_sees_whole_spans(both: Both, make_context):
    exporter = InMemorySpanExporter()
    both.providers[1].add_span_processor(SimpleSpanProcessor(exporter))

    await both.handle(make_context(USUAL))

    assert both.are_quick == [False, False]
    assert len(exporter.get_finished_spans()) == 1


async def test_where_the_sampler_has_to_be_asked_it_is(make_context, make_envelope):
    both = Both(ParentBased(TraceIdRatioBased(0.0)))

    await both.emit(make_envelope({}))
    await both.handle(make_context(USUAL))

    assert both.are_quick == [False, False, False, True]
    assert len(both.exporters[1].get_finished_spans()) == 1


def test_limits_of_the_environment_are_left_to_the_sdk() -> None:
    code = (
        "from eventbus.telemetry.tracing import setup\n"
        "print(setup('user').emit._quick is not None)"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **more},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for more in ({}, {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "4"})
    ]

    assert printed == ["True\n", "False\n"]
