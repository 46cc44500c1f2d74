"""One request, traced through three services that are processes of their own."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from eventbus.embedded import NatsServer
from tests.cli.shell import Running, started
from tests.integration.collector import Receiver, receiving

pytestmark = [pytest.mark.nats, pytest.mark.slow]

SERVICES = ("audit", "notification", "user")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def sign_up(url: str, email: str) -> str:
    """Sign somebody up as a browser does; return the correlation id of the answer."""
    request = urllib.request.Request(
        f"{url}/users",
        data=json.dumps({"email": email}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.headers["X-Correlation-ID"])


def logged(running: Running) -> list[dict[str, Any]]:
    return [json.loads(line) for line in running.lines if line.startswith("{")]


def is_settled(line: str, event: str) -> bool:
    return "delivery.settled" in line and f'"event_name": "{event}"' in line


def test_one_sign_up_is_one_trace_at_a_collector_and_in_the_logs_of_three_processes(
    nats_server: NatsServer, receiver: Receiver, tmp_path: Path
) -> None:
    settings = {
        "NATS_URL": nats_server.url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "EVENTBUS_MAILDIR": str(tmp_path / "mail"),
        "EVENTBUS_AUDIT_DATABASE": str(tmp_path / "audit.sqlite3"),
        "EVENTBUS_LOG_FORMAT": "json",
        "EVENTBUS_LOG_LEVEL": "debug",
    }
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                started("run", f"services.{name}:events", cwd=tmp_path, settings=settings)
            )
            for name in SERVICES
        }
        for process in processes.values():
            process.line("service.started")
        url = processes["user"].line("user http ").split()[2]

        correlation_id = sign_up(url, "ada@example.org")
        processes["audit"].line(lambda line: is_settled(line, "user.created"))
        processes["audit"].line(lambda line: is_settled(line, "email.sent"))
        processes["notification"].line(lambda line: is_settled(line, "user.created"))

        for process in processes.values():  # what is left of the spans is exported at the end
            process.popen.send_signal(signal.SIGTERM)
        assert {name: process.end() for name, process in processes.items()} == dict.fromkeys(
            SERVICES, 0
        )

    spans = {(one.service, one.span.name): one for one in receiver.spans()}
    assert sorted(spans) == [
        ("audit", "process email.sent"),
        ("audit", "process user.created"),
        ("notification", "process user.created"),
        ("notification", "send email.sent"),
        ("user", "send user.created"),
    ]
    assert len(receiver.spans()) == 5
    (trace_id,) = {one.trace_id for one in spans.values()}
    sent = spans["user", "send user.created"]
    assert spans["notification", "process user.created"].span.parent_span_id == sent.span.span_id
    assert sent.attributes["messaging.message.conversation_id"] == correlation_id

    for name, process in processes.items():
        lines = [line for line in logged(process) if line.get("event_name")]
        assert lines, name
        assert {line["trace_id"] for line in lines} == {trace_id}, name
        assert {line["correlation_id"] for line in lines} == {correlation_id}, name
