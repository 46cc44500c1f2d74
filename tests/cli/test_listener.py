"""`eventbus listener`: how far listeners are, and pausing one that runs in another process."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventbus.embedded import NatsServer
from tests.cli.shell import Running, cli, started, until

pytestmark = [pytest.mark.nats]


@pytest.fixture
def server(nats_server: NatsServer) -> dict[str, str]:
    return {"EVENTBUS_NATS_URL": nats_server.url}


@pytest.fixture
def running(shop: Path, server: dict[str, str]) -> Iterator[Running]:
    settings = {**server, "EVENTBUS_GRACE": "4"}
    with started("run", "services.shop:events", cwd=shop, settings=settings) as process:
        process.line("service.started")
        yield process


def listed(shop: Path, server: dict[str, str]) -> dict[str, Any]:
    """Return what the list says of each listener."""
    done = cli("listener", "list", "--json", cwd=shop, **server)
    assert done.returncode == 0, done.stderr
    return {one["listener"]: one for one in json.loads(done.stdout)}


def emit(shop: Path, server: dict[str, str], order: str) -> None:
    payload = json.dumps({"order_id": order})
    done = cli("emit", "order.placed", payload, cwd=shop, **server)
    assert done.returncode == 0, done.stderr


def test_a_running_listener_is_paused_and_goes_on(
    running: Running, shop: Path, server: dict[str, str]
) -> None:
    paused = cli("listener", "pause", "shop", "pack", "--for", "10m", cwd=shop, **server)
    emit(shop, server, "o-1")
    until(lambda: listed(shop, server)["pack"]["pending"] == 1, "nothing waits")
    pack, ship = (listed(shop, server)[name] for name in ("pack", "ship"))
    seen = running.has("packing o-1")
    resumed = cli("listener", "resume", "shop", "pack", cwd=shop, **server)

    assert paused.stdout.startswith("shop pack is paused until 20")
    assert (pack["paused"], ship["paused"]) == (True, False)
    assert [one["durable"] for one in pack["durables"]] == ["shop__pack"]
    assert (pack["ack_pending"], pack["redelivered"]) == (0, 0)
    assert not seen
    assert resumed.stdout == "shop pack goes on\n"
    running.line("packing o-1")


ATOMIC = """
from eventbus import Context, EventService
from schemas.order import OrderPacked, OrderPlaced

events = EventService("mill")


@events.subscribe(OrderPlaced, atomic=True, start="all")
async def grind(event: OrderPlaced, context: Context) -> None:
    print("grinding", event.order_id, context.is_replay, flush=True)
    await context.emit(OrderPacked(order_id=event.order_id))
"""


def test_a_listener_is_replayed_and_passes_marks_only_when_it_is_told_to(
    shop: Path, server: dict[str, str]
) -> None:
    (shop / "services" / "mill.py").write_text(ATOMIC)

    def replayed(*options: str) -> tuple[int, str, str]:
        """Return the code, the output and the errors."""
        place = ("services.mill:events", "grind", "--from", *options)
        done = cli("listener", "replay", *place, cwd=shop, **server)
        return done.returncode, done.stdout, done.stderr

    with started("run", "services.mill:events", cwd=shop, settings=server) as process:
        process.line("service.started")
        emit(shop, server, "o-1")
        process.line("grinding o-1 False")
    marked = replayed("all")
    past = replayed("1", "--again", "--json")

    assert marked[0] == past[0] == 0, (marked, past)
    assert marked[1] == "grind was handed 1 event again\n"
    assert past[1].startswith("grinding o-1 True\n")
    assert json.loads(past[1].partition("\n")[2]) == {"listener": "grind", "replayed": 1}


SLOW = """
import asyncio
from pathlib import Path

from eventbus import Context, EventService
from schemas.order import OrderPlaced

events = EventService("slow")

@events.subscribe(OrderPlaced, start="all", concurrency=1)
async def crawl(event: OrderPlaced, context: Context) -> None:
    print("crawls", event.order_id, context.is_replay, flush=True)
    while context.is_replay and not Path(f"go-on-{event.order_id}").exists():
        await asyncio.sleep(0.02)
    print("crawled", event.order_id, context.is_replay, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_replay_in_order(
    shop: Path, server: dict[str, str], number: signal.Signals
) -> None:
    (shop / "services" / "slow.py").write_text(SLOW)
    with started("run", "services.slow:events", cwd=shop, settings=server) as process:
        process.line("service.started")
        for order in ("o-1", "o-2", "o-3"):
            emit(shop, server, order)
        process.line("crawled o-3 False")

    place = ("listener", "replay", "services.slow:events", "crawl", "--from", "all")
    with started(*place, cwd=shop, settings={**server, "EVENTBUS_GRACE": "4"}) as process:
        process.line("crawls o-1 True")
        process.popen.send_signal(number)
        (shop / "go-on-o-1").touch()
        code = process.end()

    assert code == 128 + number, process.lines
    assert process.has("of 3 events had been handed out")
    assert process.has("crawled o-1 True")
    assert not process.has("crawls o-3")
    durables = listed(shop, server)["crawl"]["durables"]
    assert [one["durable"] for one in durables] == ["slow__crawl"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--from", "1h", "--until", "2h"], "the end must be later"),
        (["--from", "9000-01-01T00:00Z"], "nothing is stored yet"),
        (["--from", "99999999999999999999999"], "a sequence from 1 to"),
    ],
)
def test_a_replay_of_nothing_is_refused(
    shop: Path, server: dict[str, str], options: list[str], problem: str
) -> None:
    done = cli("listener", "replay", "services.shop:events", "pack", *options, cwd=shop, **server)

    assert done.returncode == 2
    assert problem in done.stderr


def test_a_pause_without_an_end_says_so(
    running: Running, shop: Path, server: dict[str, str]
) -> None:
    paused = cli("listener", "pause", "shop", "pack", cwd=shop, **server)
    table = cli("listener", "list", cwd=shop, **server)

    assert paused.stdout == "shop pack is paused until it is resumed\n"
    assert [line.split()[:3] for line in table.stdout.splitlines() if "pack" in line] == [
        ["shop", "pack", "paused"]
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["pause", "shop", "pak"], "did you mean 'shop pack'?"),
        (["pause", "shop", "pack", "--for", "soon"], "isn't a duration"),
        (["pause", "shop", "pack", "--for", "0"], "0 is no pause"),
        (["resume", "store", "pack"], "listener 'store pack': has no durable"),
    ],
)
def test_what_makes_no_sense_is_refused(
    running: Running, shop: Path, server: dict[str, str], arguments: list[str], problem: str
) -> None:
    done = cli("listener", *arguments, cwd=shop, **server)

    assert done.returncode == 2
    assert problem in done.stderr


def test_where_no_service_has_started_there_is_none(shop: Path, server: dict[str, str]) -> None:
    done = cli("listener", "list", cwd=shop, **server)

    assert (done.returncode, done.stdout) == (
        0,
        "no listener has a durable here; they are made when a service starts\n",
    )
