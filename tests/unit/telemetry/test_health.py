"""Probes and scrapes over real HTTP, also while the event loop is blocked."""

import asyncio
import http.client
import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from eventbus.delivery import Outcome
from eventbus.errors import SettingsError
from eventbus.telemetry.metrics import OPENMETRICS, Metrics
from eventbus.telemetry.signals import Settled
from eventbus.worker.health import Endpoint, Health, watch_loop

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class _Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> Any:
        raise NotImplementedError

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"user.created"}.__contains__, registry=CollectorRegistry())


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def endpoint(health: Health, metrics: Metrics) -> Iterator[Endpoint]:
    endpoint = Endpoint(health, metrics.exposition)
    endpoint.start()
    yield endpoint
    endpoint.stop()


def ask(endpoint: Endpoint, path: str, *, accept: str = "") -> tuple[int, str, bytes]:
    """Return status, content type and body."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=5)
    try:
        connection.request("GET", path, headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()
    finally:
        connection.close()


def raw(endpoint: Endpoint, request: bytes) -> bytes:
    """Send bytes and return all that comes back."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as client:
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_a_process_is_alive_until_its_loop_is_silent_for_longer_than_the_limit():
    clock = _Clock()
    health = Health(limit=10, clock=clock)

    clock.time += 10
    within = health.live()
    clock.time += 0.5
    beyond = health.live()
    health.turned()

    assert within == (True, [])
    assert beyond == (False, ["the event loop hasn't turned for 10.5 s"])
    assert health.live() == (True, [])


def test_a_process_is_ready_while_no_check_has_a_problem():
    health = Health()
    problems: list[str] = []
    health.add(lambda: problems)
    health.add(lambda: ())

    before = health.ready()
    problems.append("no connection to nats://127.0.0.1:4222")

    assert before == (True, [])
    assert health.ready() == (False, ["no connection to nats://127.0.0.1:4222"])
    assert health.live() == (True, [])


def test_a_check_that_raises_is_a_problem_and_the_others_still_count():
    health = Health()
    health.add(lambda: [str(1 // 0)])
    health.add(lambda: ["stopping"])

    assert health.ready() == (
        False,
        ["a check failed: ZeroDivisionError('integer division or modulo by zero')", "stopping"],
    )


def test_a_process_whose_loop_is_blocked_is_not_ready_either():
    clock = _Clock()
    health = Health(limit=10, clock=clock)

    clock.time += 11

    assert health.ready()[0] is False


def test_probes_answer_over_http_and_say_what_is_wrong(health: Health, endpoint: Endpoint):
    good = ask(endpoint, "/readyz")
    health.add(lambda: ["stopping"])
    bad = ask(endpoint, "/readyz")
    live = ask(endpoint, "/livez")

    assert (good[0], json.loads(good[2])) == (200, {"status": "ok", "problems": []})
    assert (bad[0], json.loads(bad[2])) == (503, {"status": "failing", "problems": ["stopping"]})
    assert (live[0], live[1]) == (200, "application/json")


def test_metrics_are_served_as_the_scraper_prefers(metrics: Metrics, endpoint: Endpoint):
    metrics(
        Settled(
            name="user.created",
            id="id-1",
            service="notification",
            listener="send_welcome",
            outcome=Outcome.OK,
            attempt=1,
            attempts=5,
            duration=0.01,
            end_to_end=0.02,
            correlation_id="c-1",
            trace=f"00-{TRACE}-00f067aa0ba902b7-01",
        )
    )

    plain = ask(endpoint, "/metrics")
    asked = ask(endpoint, "/metrics", accept=OPENMETRICS)

    assert plain[0] == 200
    assert plain[1].startswith("text/plain")
    assert TRACE.encode() not in plain[2]
    assert asked[1].startswith("application/openmetrics-text")
    assert f'# {{trace_id="{TRACE}"}}'.encode() in asked[2]


def test_other_paths_say_what_there_is(endpoint: Endpoint):
    status, _, body = ask(endpoint, "/health?verbose=1")

    assert status == 404
    assert json.loads(body) == {"problems": ["no /health; try /metrics, /livez or /readyz"]}


def test_head_is_answered_without_a_body(endpoint: Endpoint):
    head, _, body = raw(endpoint, b"HEAD /livez HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.0 200")
    assert body == b""


@pytest.mark.parametrize(
    ("error", "level"),
    [(ValueError("broken metric"), logging.ERROR), (BrokenPipeError(), logging.DEBUG)],
)
def test_a_scrape_that_fails_is_logged_unless_the_client_left(
    health: Health, caplog: pytest.LogCaptureFixture, error: Exception, level: int
):
    def exposition(accept: str) -> tuple[bytes, str]:
        raise error

    endpoint = Endpoint(health, exposition)
    endpoint.start()
    with caplog.at_level(logging.DEBUG, "eventbus.worker.health"):
        answer = raw(endpoint, b"GET /metrics HTTP/1.0\r\n\r\n")
    alive = ask(endpoint, "/livez")[0]
    endpoint.stop()

    assert answer == b""
    assert alive == 200
    assert [one.levelno for one in caplog.records if one.exc_info] == [level]


async def test_it_answers_while_the_event_loop_is_blocked(metrics: Metrics):
    health = Health(limit=0.2)
    endpoint = Endpoint(health, metrics.exposition)
    endpoint.start()
    try:
        # Asked from the thread of the event loop: nothing else runs on it meanwhile.
        before = ask(endpoint, "/livez")[0]
        deadline = time.monotonic() + 5
        while ask(endpoint, "/livez")[0] == 200 and time.monotonic() < deadline:
            pass
        blocked = ask(endpoint, "/livez")
    finally:
        endpoint.stop()

    assert before == 200
    assert blocked[0] == 503
    assert "the event loop hasn't turned for" in json.loads(blocked[2])["problems"][0]


async def test_the_watch_shows_the_lag_and_logs_a_blocked_loop_once(
    caplog: pytest.LogCaptureFixture,
):
    health = Health(limit=60)
    lags: list[float] = []
    measured = asyncio.Event()

    def lag(seconds: float) -> None:
        lags.append(seconds)
        if len(lags) == 1:
            # As a careless listener would.
            asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        if len(lags) == 5:
            measured.set()

    with caplog.at_level(logging.WARNING):
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch_loop(health, lag, interval=0.01, blocked=0.2))
            async with asyncio.timeout(10):
                await measured.wait()
            watching.cancel()

    assert max(lags) > 0.2
    # The longest of the window stays visible between two scrapes.
    assert lags[-1] == max(lags)
    assert len(caplog.records) == 1
    assert "the event loop was blocked for 0." in caplog.text


def test_a_port_that_is_taken_is_a_settings_error_that_names_the_variable(
    health: Health, metrics: Metrics
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(SettingsError, match=f"EVENTBUS_METRICS_PORT={port} is taken"):
            Endpoint(health, metrics.exposition, port=port).start()


def test_an_address_of_another_machine_is_a_settings_error(health: Health, metrics: Metrics):
    with pytest.raises(SettingsError, match=r"can't listen on 192\.0\.2\.1"):
        Endpoint(health, metrics.exposition, host="192.0.2.1").start()


def test_stopped_it_gives_its_port_back_at_once(health: Health, metrics: Metrics):
    endpoint = Endpoint(health, metrics.exposition)
    endpoint.start()
    port = endpoint.port
    started = time.monotonic()

    endpoint.stop()
    endpoint.stop()

    assert time.monotonic() - started < 20
    again = Endpoint(health, metrics.exposition, port=port)
    again.start()
    assert ask(again, "/livez")[0] == 200
    again.stop()


def test_it_listens_on_ipv6_too(health: Health, metrics: Metrics):
    endpoint = Endpoint(health, metrics.exposition, host="::1")
    try:
        endpoint.start()
    except SettingsError as exc:
        pytest.skip(f"no IPv6 here: {exc}")
    with socket.create_connection(("::1", endpoint.port)) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        answer = client.recv(64)
    endpoint.stop()

    assert answer.startswith(b"HTTP/1.0 200")
