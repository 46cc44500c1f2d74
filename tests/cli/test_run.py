"""`eventbus run`: a process of services, from start to exit code."""

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from eventbus.embedded import NatsServer
from tests.cli.shell import Running, cli, started, until

BROKEN = "from eventbus import EventServic\n"
FAILING = """
import asyncio
from pathlib import Path

from eventbus import EventService

events = EventService("failing")


@events.background
async def fail() -> None:
    while not Path("fail-now").exists():
        await asyncio.sleep(0.02)
    raise ValueError("out of paper")
"""
UNKNOWN = """
from eventbus import EventService
from schemas.order import OrderPlaced

events = EventService("guess")


@events.subscribe("order.guessed")
async def guess(event: OrderPlaced) -> None: ...
"""


@pytest.fixture
def server(nats_server: NatsServer) -> dict[str, str]:
    return {"EVENTBUS_NATS_URL": nats_server.url}


@pytest.fixture
def grace() -> int:
    return 60


@pytest.fixture
def running(shop: Path, server: dict[str, str], grace: int) -> Iterator[Running]:
    settings = {**server, "EVENTBUS_GRACE": str(grace), "EVENTBUS_METRICS_PORT": "0"}
    with started("run", "services.shop:events", cwd=shop, settings=settings) as process:
        process.line("service.started")
        yield process


def emit(shop: Path, server: dict[str, str], name: str, **payload: object) -> None:
    done = cli("emit", name, json.dumps(payload), cwd=shop, **server)
    assert done.returncode == 0, done.stderr


def probe(running: Running, path: str) -> int:
    url = running.line(" metrics http").split()[2]
    try:
        with urllib.request.urlopen(url.replace("/metrics", path)) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code


def test_a_sigterm_lets_what_runs_finish_and_exits_with_0(
    running: Running, shop: Path, server: dict[str, str]
) -> None:
    emit(shop, server, "order.placed", order_id="o-1", work=1)
    running.line("packing o-1")

    running.popen.send_signal(signal.SIGTERM)

    assert running.end() == 0
    assert running.has("packed o-1")


@pytest.mark.parametrize("grace", [4])
def test_what_cannot_finish_in_the_grace_period_goes_to_the_next_process(
    running: Running, shop: Path, server: dict[str, str]
) -> None:
    emit(shop, server, "order.placed", order_id="o-1", work=500)
    running.line("packing o-1")

    began = time.monotonic()
    running.popen.send_signal(signal.SIGTERM)
    code = running.end()
    took = time.monotonic() - began

    assert code == 0
    assert took < 60
    with started("run", "services.shop:events", cwd=shop, settings=server) as other:
        # At once, not after the ack wait of 600 s: it was handed back.
        other.line("packing o-1")


def test_it_is_not_ready_while_it_stops(
    running: Running, shop: Path, server: dict[str, str]
) -> None:
    emit(shop, server, "order.placed", order_id="held")
    running.line("packing held")
    ready = probe(running, "/readyz")

    running.popen.send_signal(signal.SIGTERM)

    assert ready == 200
    until(lambda: probe(running, "/readyz") == 503, "still ready")
    assert probe(running, "/livez") == 200
    (shop / "go-on").touch()
    assert running.end() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_it_at_once(
    running: Running, shop: Path, server: dict[str, str], number: signal.Signals, code: int
) -> None:
    emit(shop, server, "order.placed", order_id="held")
    running.line("packing held")
    running.popen.send_signal(signal.SIGTERM)
    until(lambda: probe(running, "/readyz") == 503, "the first signal wasn't seen")

    began = time.monotonic()
    running.popen.send_signal(number)

    assert running.end() == code
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("grace", [4])
@pytest.mark.parametrize(
    ("stuck", "where"), [("loop", "shop.py"), ("thread", "concurrent/futures/thread.py")]
)
def test_a_listener_that_is_stuck_cannot_hold_the_process(
    running: Running, shop: Path, server: dict[str, str], stuck: str, where: str
) -> None:
    emit(shop, server, "order.packed", order_id=stuck)
    running.line(f"shipping {stuck}")

    running.popen.send_signal(signal.SIGTERM)

    assert running.end() == 1
    assert running.has(where), "it says where it is stuck"


def test_it_waits_for_a_server_that_is_down_and_says_so(shop: Path) -> None:
    settings = {"EVENTBUS_NATS_URL": "nats://127.0.0.1:1", "EVENTBUS_METRICS_PORT": "0"}

    with started("run", "services.shop:events", cwd=shop, settings=settings) as running:
        said = running.line("connection.lost")
        ready = probe(running, "/readyz")
        running.popen.send_signal(signal.SIGTERM)
        code = running.end()

    assert "nats://127.0.0.1:1" in said
    assert ready == 503
    assert code == 0


def test_several_services_share_a_process(shop: Path, server: dict[str, str]) -> None:
    targets = ("services.shop:events", "services.store:events")
    settings = {**server, "EVENTBUS_METRICS_PORT": "0"}

    with started("run", *targets, cwd=shop, settings=settings) as running:
        running.line("shop+store metrics http://127.0.0.1:")
        running.line(lambda line: "service.started" in line and '"shop"' in line)
        running.line(lambda line: "service.started" in line and '"store"' in line)
        running.popen.send_signal(signal.SIGINT)
        code = running.end()

    assert code == 0


def test_a_queue_works_only_its_own_listeners(shop: Path, server: dict[str, str]) -> None:
    arguments = ("run", "services.shop:events", "--queue", "heavy")

    with started(*arguments, cwd=shop, settings=server) as running:
        running.line("service.started")
        emit(shop, server, "order.placed", order_id="o-1")
        emit(shop, server, "order.packed", order_id="o-2")
        running.line("shipping o-2")

        assert not running.has("packing")
        assert not running.has("shop__pack"), "the durable of the other queue isn't touched"


def test_a_process_ends_when_its_parent_is_gone(shop: Path, server: dict[str, str]) -> None:
    arguments = ("run", "--with-parent", "services.shop:events")

    with started(*arguments, cwd=shop, settings=server) as running:
        running.line("service.started")
        assert running.popen.stdin is not None
        running.popen.stdin.close()
        code = running.end()

    assert code == 0


def test_a_failed_background_job_ends_the_process_with_1(
    shop: Path, server: dict[str, str]
) -> None:
    (shop / "services/failing.py").write_text(FAILING)
    targets = ("services.failing:events", "services.shop:events")

    with started("run", *targets, cwd=shop, settings=server) as running:
        running.line(lambda line: "service.started" in line and '"shop"' in line)
        (shop / "fail-now").touch()
        code = running.end()

    assert code == 1
    assert running.has("process.failed")
    assert running.has("out of paper")
    assert running.has("service.stopped"), "the other one stops in order"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("services.shop", "write it like 'services.shop:events'"),
        ("services.shpo:events", "did you mean 'services.shop'?"),
        ("servces.shop:events", "did you mean 'services'?"),
        ("services.shop:event", "did you mean 'events'?"),
        ("services.shop:pack", "is of type function, not an EventService; did you mean"),
        ("services.store:number", "is of type int, not an EventService"),
        ("services.broken:events", "cannot import name 'EventServic'"),
        ("services.guess:events", "isn't among 'order.guessed'"),
    ],
)
def test_a_bad_target_is_one_clear_error(
    shop: Path, server: dict[str, str], target: str, said: str
) -> None:
    (shop / "services/broken.py").write_text(BROKEN)
    (shop / "services/guess.py").write_text(UNKNOWN)

    done = cli("run", target, cwd=shop, **server)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_module_is_named_with_its_line(shop: Path) -> None:
    (shop / "services/broken.py").write_text(BROKEN)

    done = cli("run", "services.broken:events", cwd=shop)

    assert "services/broken.py:1)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("services.shop:events", "services.store:twin"), "are both called 'shop'"),
        (("services.shop:events", "--queue", "hevy"), "did you mean 'heavy'?"),
        ((), "Missing argument"),
    ],
)
def test_a_wrong_use_is_code_2(shop: Path, arguments: tuple[str, ...], said: str) -> None:
    done = cli("run", *arguments, cwd=shop)

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_credentials_are_a_wrong_configuration(shop: Path) -> None:
    with NatsServer(config='authorization { user: ada, password: "secret" }') as server:
        done = cli("run", "services.shop:events", cwd=shop, EVENTBUS_NATS_URL=server.url)

    assert done.returncode == 2
    assert "[driver.not_authorized]" in done.stderr
    assert "Traceback" not in done.stderr
