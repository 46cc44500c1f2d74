"""`eventbus schedule`: what waits for its time, listed and cancelled from the command line."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from eventbus import Event, EventService
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from tests.cli.shell import cli
from tests.waiting import eventually

pytestmark = [pytest.mark.nats]


class OrderPlaced(Event, name="order.placed", key="order_id"):
    order_id: str


class StockCounted(Event, name="stock.counted"):
    pass


class Desk:
    """A namespace in which things wait, and the command."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def fill(self) -> None:
        """Have two orders and a count wait."""
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        events = EventService("shop", settings=Settings(nats_url=self.url))
        events.cron("0 9 * * *", timezone="Europe/Paris", name="count")(StockCounted)
        async with events:
            await events.emit(OrderPlaced(order_id="größer"), id="o/1", delay="2h")
            await events.emit(OrderPlaced(order_id="2"), id="o-2", delay="1h")
            emitter = events._emitter
            assert emitter is not None
            schedules = emitter.driver.schedules

            async def ticks() -> bool:
                return await schedules.read("events-sched.shop.tick.count") is not None

            await eventually(ticks, 30)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        done = cli(
            "schedule", *arguments, cwd=self.folder, EVENTBUS_NATS_URL=self.url, COLUMNS="140"
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json")[1])


@pytest.fixture
def desk(bare: Path, nats_server: NatsServer) -> Desk:
    return Desk(bare, nats_server.url)


def test_what_waits_is_listed_with_what_comes_first_in_front(desk: Desk) -> None:
    desk.fill()

    orders = desk.json("list", "--event", "order.*")
    (count,) = desk.json("list", "--service", "shop", "--event", "stock.counted")
    _, table = desk("list")
    _, short = desk("list", "--limit", "1")

    assert [(one["id"], one["key"], one["recurring"]) for one in orders] == [
        ("o-2", "2", None),
        ("o/1", "größer", None),
    ]
    assert orders[0]["at"] < orders[1]["at"]
    assert (count["recurring"], count["rule"]) == ("count", "cron 0 9 * * * Europe/Paris")
    assert all(text in table for text in ("o/1", "order.placed", "count", "cron 0 9", "60m"))
    assert "1 of 3" in short


def test_what_is_cancelled_does_not_wait_any_more(desk: Desk) -> None:
    desk.fill()

    done = desk("cancel", "shop", "o/1", "count")
    again = desk("cancel", "shop", "o-2", "o-9")
    left = desk.json("list")

    assert done == (0, "shop o/1 is cancelled\nshop count is cancelled\n")
    assert again[0] == 1
    assert "shop o-2 is cancelled" in again[1]
    assert "shop o-9 isn't there" in again[1]
    assert left == []
    assert desk("list") == (0, "nothing waits\n")


def test_what_can_not_be_asked_for_is_refused(desk: Desk) -> None:
    code, said = desk("list", "--event", "Order")

    assert code == 2
    assert "isn't an event name" in said
