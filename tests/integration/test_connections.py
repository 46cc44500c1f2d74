"""Named configurations of one driver on a real server, each with what is its own."""

import asyncio

from eventbus import Context, Event, EventService, Settings
from eventbus.configuration import DriverConfig
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.drivers.sync import SyncDriver
from eventbus.embedded import NatsServer
from eventbus.telemetry.signals import Settled
from tests.integration.rig import settings_of


class ReportWanted(Event, name="report.wanted", driver="once"):
    what: str


class UserCreated(Event, name="user.created"):
    user_id: str


async def letters(settings: Settings) -> int:
    async with JetStreamDriver(settings, service="ops") as driver:
        return (await driver.letterbox.view()).messages


async def test_each_connection_has_its_queue_its_attempts_and_its_dead_letters(
    nats_server: NatsServer,
) -> None:
    settings = settings_of(nats_server.url)
    seen: list[str] = []
    dead = asyncio.Event()
    drivers = {
        "once": DriverConfig(queue="reports", run_once=True, failed_queue="reports"),
        "sync": SyncDriver(),
    }

    def watch(happened: object) -> None:
        if isinstance(happened, Settled) and happened.outcome == "dead":
            dead.set()

    events = EventService("app", settings=settings, drivers=drivers, observers=[watch])

    @events.subscribe(ReportWanted)
    async def report(event: ReportWanted, context: Context) -> None:
        seen.append(f"report {context.attempt}")
        raise LookupError

    @events.subscribe(UserCreated)
    async def user(event: UserCreated) -> None:
        seen.append("user")

    assert events.queues() == {"reports", "default"}
    async with events:
        assert (await events.emit(UserCreated(user_id="u-1"), driver="sync")).driver == "sync"
        await events.emit(ReportWanted(what="sales"))
        async with asyncio.timeout(30):
            await dead.wait()

    assert seen == ["user", "report 1"]
    assert await letters(settings.override(failed_queue="reports")) == 1
    assert await letters(settings) == 0
