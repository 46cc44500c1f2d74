"""The runner inside of one process: services that end together, instruments, the order to stop."""

import asyncio
from collections.abc import Callable

import pytest

from eventbus import Event, EventService, Settings
from eventbus.embedded import NatsServer
from eventbus.errors import ConfigurationError, EventBusError
from eventbus.runner import Stop, instrument, serve, work_only
from eventbus.telemetry.signals import Happened, Settled, Stopped
from schemas.user import UserCreated

ADA = {"user_id": "u-1", "email": "ada@mail.example"}


@pytest.fixture
def settings(nats_server: NatsServer) -> Settings:
    return Settings.load(nats_url=nats_server.url)


def telling(told: asyncio.Event, kind: type, service: str) -> Callable[[Happened], None]:
    def observe(happened: Happened) -> None:
        if isinstance(happened, kind) and happened.service == service:
            told.set()

    return observe


def started(service: EventService) -> asyncio.Event:
    event = asyncio.Event()

    @service.background
    async def tell() -> None:
        event.set()

    return event


async def test_services_work_until_they_are_asked_to_stop(settings: Settings) -> None:
    user, audit = EventService("user", settings=settings), EventService("audit", settings=settings)
    heard: list[str] = []

    @audit.subscribe("user.*")
    async def record(event: Event) -> None:
        heard.append(type(event).__name__)

    stop, settled, running = Stop(), asyncio.Event(), [started(user), started(audit)]
    audit.observe(telling(settled, Settled, "audit"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        served = group.create_task(serve([user, audit], settings, stop))
        for one in running:
            await one.wait()
        await user.emit("user.created", ADA)
        await settled.wait()
        stop.ask()

    assert served.result() == 0
    assert len(heard) == 1
    assert not user.status().ready


async def test_a_service_that_fails_stops_the_others_in_order(settings: Settings) -> None:
    well, ill = EventService("well", settings=settings), EventService("ill", settings=settings)
    stopped, running = asyncio.Event(), started(well)
    well.observe(telling(stopped, Stopped, "well"))

    @ill.background
    async def fail() -> None:
        await running.wait()
        raise EventBusError("out of paper")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(20):
            await serve([well, ill], settings, Stop())

    assert caught.group_contains(EventBusError, match="out of paper")
    assert stopped.is_set()


async def test_metrics_name_declared_events_that_no_listener_names(settings: Settings) -> None:
    service = EventService("audit", settings=settings)
    settled = asyncio.Event()

    @service.subscribe(">")
    async def record(event: Event) -> None: ...

    instruments = instrument([service], settings)
    service.observe(telling(settled, Settled, "audit"))
    async with asyncio.timeout(20), service:
        await service.emit(UserCreated(**ADA))
        await settled.wait()
        ready = instruments.health.ready()
    await instruments.aclose()

    text = instruments.metrics.exposition()[0].decode()
    counted = 'eventbus_processed_total{event="user.created",listener="record",outcome="ok"} 1.0'
    assert counted in text
    assert ready == (True, [])
    assert instruments.health.ready()[0] is False


async def test_a_problem_names_its_service_where_there_are_several(settings: Settings) -> None:
    alone = instrument([EventService("mail", settings=settings)], settings)
    both = instrument([EventService(name, settings=settings) for name in "ab"], settings)

    assert alone.health.ready() == (False, ["service 'mail' isn't started"])
    assert both.health.ready()[1] == [
        "a: service 'a' isn't started",
        "b: service 'b' isn't started",
    ]


async def test_work_only_refuses_a_queue_that_nobody_is_in(settings: Settings) -> None:
    service = EventService("mail", settings=settings)

    @service.subscribe(UserCreated, queue="emails")
    async def welcome(event: UserCreated) -> None: ...

    with pytest.raises(ConfigurationError, match="did you mean 'emails'"):
        work_only([service], ["email"])
    work_only([service], ["emails"])

    assert [one.listener for one in service.subscriptions] == ["welcome"]


async def test_the_order_to_stop_cancels_work_that_is_not_done() -> None:
    stop = Stop()

    async def work() -> int:
        return 7

    assert await stop.before(work()) == 7
    stop.ask()
    assert await stop.before(asyncio.Event().wait()) is None
    assert stop.asked
