"""An emit's span is the same whichever way the emit goes: called around it, or taken apart."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from opentelemetry import baggage
from opentelemetry import context as otel
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from eventbus import EventService
from eventbus.correlation import Scope, entered
from eventbus.drivers.base import Receipt
from eventbus.embedded import NatsServer
from eventbus.envelope import Envelope
from eventbus.errors import BackpressureError, PayloadTooLargeError
from eventbus.middleware.base import CallEmit
from eventbus.telemetry.exporting import WholeSpans
from eventbus.telemetry.provider import OwnProvider
from eventbus.telemetry.quickspan import QuickSpans
from eventbus.telemetry.spans import SCOPE, EmitTracing
from tests.integration.boxes import BoxSent, Heard, boxes, cancel_unanswered, serving
from tests.integration.rig import Line
from tests.unit.telemetry.test_quickspan import told

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("_nats_binary")]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CARRIED = f"00-{TRACE}-00f067aa0ba902b7-01"


async def along(envelope: Envelope, call_next: CallEmit) -> Receipt:
    """Be another middleware, so that none is taken apart."""
    return await call_next(envelope)


class Traced:
    """A service whose emits are traced, and their spans."""

    def __init__(self, events: EventService, exporter: InMemorySpanExporter, heard: Heard) -> None:
        self.events = events
        self.spans = exporter
        self.heard = heard

    def told(self) -> list[dict[str, object]]:
        """Return the spans without what differs: their own ids, those of the events."""
        every = [told(one) for one in self.spans.get_finished_spans()]
        for one in every:
            del one["trace"]
            for name in ("messaging.message.id", "messaging.message.conversation_id"):
                one["attributes"].pop(name, None)  # type: ignore[attr-defined]
        return every


@asynccontextmanager
async def traced(url: str, *, is_short: bool, **more: object) -> AsyncIterator[Traced]:
    exporter, heard = InMemorySpanExporter(), Heard()
    provider, processor = OwnProvider(), SimpleSpanProcessor(WholeSpans(exporter))
    provider.export_to(processor)
    tracing = EmitTracing(provider, str, QuickSpans(provider, processor, SCOPE))
    emits = (tracing,) if is_short else (tracing, along)
    async with serving(url, heard, emits, **more) as events:
        yield Traced(events, exporter, heard)


async def both(url: str, **more: object) -> AsyncIterator[Traced]:
    for is_short in (True, False):
        async with traced(url, is_short=is_short, **more) as one:
            yield one


async def headers_of(one: Traced, receipts: list[Receipt]) -> list[Mapping[str, str]]:
    """Return the headers that are stored."""
    driver = one.events._ready().driver
    messages = [await driver.stored(each) for each in receipts]
    return [{} if each is None else each.headers for each in messages]


async def test_what_is_sent_and_told_names_the_span(nats_server: NatsServer) -> None:
    seen: list[object] = []
    async for one in both(nats_server.url):
        receipts = [await one.events.emit(BoxSent(number="1"))]
        receipts += await one.events.emit_many(boxes(20))
        spans = one.spans.get_finished_spans()
        made = [f"00-{x.context.trace_id:032x}-{x.context.span_id:016x}-03" for x in spans]

        assert sorted(x.trace for x in receipts) == sorted(made)
        assert [x.trace for x in receipts[:1]] == made[:1]
        assert sorted(x.trace for x in one.heard.stored) == sorted(made)
        assert [x["traceparent"] for x in await headers_of(one, receipts)] == [
            x.trace for x in receipts
        ]
        assert spans[0].attributes["messaging.message.id"] == receipts[0].id
        seen.append(one.told())

    assert len(seen[0]) == 21
    assert seen[0] == seen[1]


async def test_the_parent_is_the_active_span_else_that_of_the_scope(
    nats_server: NatsServer,
) -> None:
    async for one in both(nats_server.url):
        with entered(Scope(correlation_id="c-1", trace={"traceparent": CARRIED})):
            await one.events.emit(BoxSent(number="1"))
            with OwnProvider().get_tracer("app").start_as_current_span("app") as app:
                await one.events.emit(BoxSent(number="2"))

        first, second = one.spans.get_finished_spans()
        assert f"{first.context.trace_id:032x}" == TRACE
        assert first.parent is not None
        assert first.parent.is_remote
        assert first.attributes["messaging.message.conversation_id"] == "c-1"
        assert second.parent == app.get_span_context()


async def test_baggage_travels(nats_server: NatsServer) -> None:
    async for one in both(nats_server.url):
        token = otel.attach(baggage.set_baggage("team", "a"))
        receipts = [await one.events.emit(BoxSent(number="1"))]
        receipts += await one.events.emit_many(boxes(20))
        otel.detach(token)

        assert [x["baggage"] for x in await headers_of(one, receipts)] == ["team=a"] * 21
        assert len(one.spans.get_finished_spans()) == 21


async def test_what_can_not_be_carried_is_an_error(nats_server: NatsServer) -> None:
    seen: list[object] = []
    async for one in both(nats_server.url):
        with pytest.raises(PayloadTooLargeError):
            await one.events.emit(BoxSent(number="big", content="x" * 2_000_000))
        seen.append(one.told())

    assert seen[0] == seen[1]
    assert seen[0][0]["status"][0] is StatusCode.ERROR


async def test_what_the_server_refuses_is_an_error(nats_server: NatsServer) -> None:
    async def never(event: BoxSent) -> None:
        await asyncio.Event().wait()

    async def fill(events: EventService) -> None:
        for _ in range(200):
            await events.emit(BoxSent(number="1", content="x" * 8000))

    seen: list[object] = []
    async for one in both(nats_server.url, max_bytes=1024 * 1024, grace=0.5):
        await one.events.subscribe(BoxSent, never)
        with pytest.raises(BackpressureError):
            await fill(one.events)
        seen.append(one.told()[-1])

    assert seen[0]["status"][0] is StatusCode.ERROR
    assert [name for name, _ in seen[0]["events"]] == ["exception"]
    assert seen[0]["attributes"] == seen[1]["attributes"]


async def test_a_cancelled_emit_ends_its_span_and_is_no_error(nats_server: NatsServer) -> None:
    seen: list[object] = []
    for is_short in (True, False):
        async with (
            Line(nats_server) as line,
            traced(line.url, is_short=is_short) as one,
        ):
            await cancel_unanswered(one.events.emit(BoxSent(number="1")), line)
            seen.append(one.told())

    assert seen[0] == seen[1]
    assert seen[0][0]["status"][0] is StatusCode.UNSET
