"""The real exporter, a real OTLP receiver, and services on a real server in one process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from eventbus.embedded import NatsServer
from tests.integration.collector import Receiver, receiving
from tests.paths import PYTHON_PATH

pytestmark = pytest.mark.nats

APP = """
import asyncio
import logging

import structlog

from eventbus.event import Event
from eventbus.runner import instrument
from eventbus.service import EventService
from eventbus.settings import Settings
from eventbus.telemetry import logs


class UserCreated(Event, name="user.created"):
    user_id: str


class EmailSent(Event, name="email.sent"):
    user_id: str


settings = Settings.load(log_level="debug", log_format="json")
logs.configure(settings)
names = ("user", "notification", "audit")
user, notification, audit = services = [EventService(one, settings=settings) for one in names]
recorded = asyncio.Event()
failed = False


@notification.subscribe(UserCreated)
async def send_welcome(event: UserCreated) -> None:
    global failed
    if not failed:
        failed = True
        raise ConnectionError("mail server down")
    structlog.get_logger("shop").info("mail.sent")
    await notification.emit(EmailSent(user_id=event.user_id))


@audit.subscribe(EmailSent)
async def record(event: EmailSent) -> None:
    logging.getLogger("shop").info("recorded")
    recorded.set()


async def main() -> None:
    instruments = instrument(services, settings)
    async with user, notification, audit:
        await user.emit(UserCreated(user_id="u-1"))
        async with asyncio.timeout(30):
            await recorded.wait()
    await instruments.aclose()


asyncio.run(main())
"""

UNREACHABLE = """
import time
from opentelemetry import trace
from eventbus.telemetry import tracing

tracing.FLUSH_TIME = 0.3
tracing_of_user = tracing.setup("user")
trace.get_tracer("app").start_span("lost").end()
started = time.monotonic()
tracing_of_user.shutdown()
print(time.monotonic() - started < 3)
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def run(code: str, folder: Path, **variables: str) -> tuple[str, list[dict[str, Any]]]:
    """Run code in a process of its own; return what it printed and its JSON log lines."""
    app = folder / "app.py"
    app.write_text(code)
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    env["PYTHONPATH"] = PYTHON_PATH
    ran = subprocess.run(
        [sys.executable, str(app)],
        env={**env, **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    return ran.stdout, lines


def test_one_event_is_one_trace_across_three_services_and_in_their_logs(
    nats_server: NatsServer, receiver: Receiver, tmp_path: Path
):
    _, lines = run(
        APP,
        tmp_path,
        NATS_URL=nats_server.url,
        EVENTBUS_RETRY_DELAY="0.01",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
    )

    spans = sorted(receiver.spans(), key=lambda one: one.span.start_time_unix_nano)
    assert [(one.service, one.span.name) for one in spans] == [
        ("user", "send user.created"),
        ("notification", "process user.created"),
        ("notification", "process user.created"),
        ("notification", "send email.sent"),
        ("audit", "process email.sent"),
    ]
    assert len({one.trace_id for one in spans}) == 1
    send, failed, process, second_send, record = spans

    # Each span hangs where it belongs, and a run is also linked to the emit.
    assert failed.span.parent_span_id == process.span.parent_span_id == send.span.span_id
    assert second_send.span.parent_span_id == process.span.span_id
    assert record.span.parent_span_id == second_send.span.span_id
    assert [link.span_id for link in record.span.links] == [second_send.span.span_id]
    kinds = [one.span.kind for one in spans]
    producer, consumer = SpanMessage.SPAN_KIND_PRODUCER, SpanMessage.SPAN_KIND_CONSUMER
    assert kinds == [producer, consumer, consumer, producer, consumer]

    assert [one.attributes.get("eventbus.attempt") for one in (failed, process)] == [1, 2]
    assert failed.attributes["error.type"] == "ConnectionError"
    assert send.attributes["messaging.destination.name"] == "events.user.created"
    assert record.attributes["messaging.consumer.group.name"] == "audit__record"
    assert "error.type" not in process.attributes

    traced = {line["event"]: line["trace_id"] for line in lines if "trace_id" in line}
    assert (
        traced.items()
        >= {
            "mail.sent": send.trace_id,
            "recorded": send.trace_id,
            "delivery.settled": send.trace_id,
        }.items()
    )
    (retried,) = [line for line in lines if line.get("outcome") == "retry"]
    assert (retried["trace_id"], retried["error_type"]) == (send.trace_id, "ConnectionError")


def test_without_an_endpoint_nothing_is_traced(nats_server: NatsServer, tmp_path: Path):
    _, lines = run(APP, tmp_path, NATS_URL=nats_server.url, EVENTBUS_RETRY_DELAY="0.01")

    assert [line for line in lines if line["event"] == "mail.sent"]
    assert [line for line in lines if "trace_id" in line] == []


def test_a_collector_that_is_down_holds_up_the_stop_no_longer_than_its_time(tmp_path: Path):
    printed, _ = run(UNREACHABLE, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")

    assert printed == "True\n"


def test_a_service_name_that_the_environment_sets_wins(receiver: Receiver, tmp_path: Path):
    run(
        "from eventbus.telemetry.tracing import setup\n"
        "from opentelemetry import trace\n"
        "tracing = setup('user')\n"
        "trace.get_tracer('app').start_span('x').end()\n"
        "tracing.shutdown()\n",
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint,
        OTEL_SERVICE_NAME="shop-user",
    )

    assert [one.service for one in receiver.spans()] == ["shop-user"]
