"""What tracing adds to an event when all are sampled: ``python -m bench.tracing``.

Ours with tracing off, on, and on through a provider of the application, in interleaved rounds,
each run its own process; and what OpenTelemetry's SDK takes by itself for such a span. See
bench/README.md.
"""

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from typing_extensions import override

from bench.contestants import ours
from eventbus import EventService
from eventbus.embedded import NatsServer
from eventbus.telemetry import tracing

EVENTS = {"emit": 20_000, "consume": 20_000}
WIDTH = 256
ATTRIBUTES: dict[str, str | int] = {
    "messaging.system": "nats",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.destination.name": "events.order.placed",
    "messaging.destination.template": "order.placed",
    "messaging.message.id": "019aa0c4-0000-7000-8000-000000000000",
    "messaging.message.conversation_id": "019aa0c4-0000-7000-8000-000000000000",
    "messaging.message.body.size": 260,
    "eventbus.event.version": 1,
}
"""As many as a span of ours has."""


class Dropping(SpanExporter):
    """Takes spans as a batch processor hands them over, and forgets them."""

    count = 0

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Count them."""
        self.count += len(spans)
        return SpanExportResult.SUCCESS

    @override
    def shutdown(self) -> None:
        """Have nothing to close."""


def traced(url: str) -> EventService:
    """Return the service of the other benchmarks, with tracing."""
    events = ours.service_of(url)
    made = tracing.setup("bench", subject="events.{}".format, exporter=Dropping())
    events.use(middleware=[made.consume], emit=[made.emit])
    return events


def traced_by_application(url: str) -> EventService:
    """Return it with the tracing of an application that has a provider of its own."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Dropping()))
        trace.set_tracer_provider(provider)
    return traced(url)


MAKES: dict[str, ours.Make] = {
    "off": ours.service_of,
    "on": traced,
    "application": traced_by_application,
}


def run(case: str, which: str, events: int) -> float:
    """Return the microseconds of processor time that an event takes in this process."""
    make = MAKES[which]
    # As `eventbus run` does: what is loaded once isn't looked at for every event.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    with NatsServer() as server:
        if case == "emit":
            result = asyncio.run(ours.emit(server.url, events, WIDTH, make))
        else:
            result = asyncio.run(ours.consume(server.url, events, make))
    return result.figures()["cpu_us"]


def bare(case: str, spans: int) -> float:
    """Return the microseconds that the SDK takes for a span alone."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Dropping()))
    tracer = provider.get_tracer("bench")
    origin = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
    handled = case == "consume"
    kind = SpanKind.CONSUMER if handled else SpanKind.PRODUCER
    parent = trace.set_span_in_context(NonRecordingSpan(origin), otel.Context())
    began = time.process_time()
    for _ in range(spans):
        links = [Link(origin)] if handled else None
        tracer.start_span(
            "process order.placed", parent if handled else None, kind, ATTRIBUTES, links
        ).end()
    taken = time.process_time() - began
    provider.shutdown()
    return taken / spans * 1e6


def measure(case: str, which: str, events: int) -> float:
    """Return one figure, from a process of its own."""
    command = [sys.executable, "-m", "bench.tracing", case, "--one", which]
    command += ["--events", str(events)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Compare, or take one figure in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", nargs="*", default=list(EVENTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=0)
    parser.add_argument("--one", choices=(*MAKES, "bare"))
    asked = parser.parse_args()
    for case in asked.case:
        events = asked.events or EVENTS[case]
        if asked.one == "bare":
            print(json.dumps(bare(case, events)))
        elif asked.one:
            print(json.dumps(run(case, asked.one, events)))
        else:
            _compare(case, events, asked.rounds)


def _compare(case: str, events: int, rounds: int) -> None:
    found: dict[str, list[float]] = {which: [] for which in (*MAKES, "bare")}
    for _ in range(rounds):
        for which, figures in found.items():
            figures.append(measure(case, which, events))
    off, on, application, alone = (median(figures) for figures in found.values())
    for name, figure in (("on", on), ("application", application)):
        print(
            f"{case:8} {name:12} {figure:6.1f} us  off {off:6.1f} us  x{figure / off:.2f}"
            f"  adds {figure - off:5.1f} us; a span of the SDK alone {alone:5.1f} us",
            flush=True,
        )


if __name__ == "__main__":
    main()
