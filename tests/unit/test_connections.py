"""Several drivers in one service: by name, by event, by emit, by listener, by a function."""

import pytest
from pydantic import ValidationError

from eventbus import Context, Event, EventService, Retry, Settings
from eventbus.configuration import DriverConfig
from eventbus.drivers.memory import MemoryBroker, MemoryDriver
from eventbus.drivers.sync import SyncDriver
from eventbus.drivers.wrappers import Monitored
from eventbus.errors import DeclarationError, SettingsError, UnsupportedError
from eventbus.testing.clock import VirtualClock

MEMORY = Settings(driver="memory")


class UserCreated(Event, name="user.created", key="user_id"):
    user_id: str


class PaymentFailed(Event, name="payment.failed", priority="high"):
    payment_id: str


class ReportWanted(Event, name="report.wanted", driver="slow"):
    what: str


def critical_at_once(event: Event) -> str:
    spec = event.event_spec
    return "sync" if spec is not None and spec.priority == "high" else "queue"


async def test_a_function_chooses_the_driver_of_each_event() -> None:
    clock = VirtualClock()
    receipts: dict[str, str] = {}
    heard: list[str] = []
    events = EventService("app", settings=MEMORY, driver=critical_at_once, clock=clock)

    @events.subscribe("user.created")
    async def user(event: UserCreated) -> None:
        heard.append("user")

    @events.subscribe("payment.failed")
    async def payment(event: PaymentFailed) -> None:
        heard.append("payment")

    async with events:
        for event in (PaymentFailed(payment_id="p-1"), UserCreated(user_id="u-1")):
            receipts[type(event).__name__] = (await events.emit(event)).driver
        await clock.settle()

    assert receipts == {"UserCreated": "memory", "PaymentFailed": "sync"}
    assert heard == ["payment", "user"]


async def test_a_connection_has_its_own_queue_attempts_delay_and_failed_queue() -> None:
    clock = VirtualClock()
    runs: list[float] = []
    slow = DriverConfig(
        driver="memory", queue="reports", attempts=2, run_after="1m", failed_queue="reports"
    )
    events = EventService("app", settings=MEMORY, drivers={"slow": slow}, clock=clock)

    @events.subscribe(ReportWanted)
    async def report(event: ReportWanted) -> None:
        runs.append(clock.monotonic())
        raise LookupError

    @events.subscribe(UserCreated)
    async def user(event: UserCreated) -> None: ...

    assert events.queues() == {"reports", "default"}
    async with events:
        broker = _broker(events)
        await events.emit(ReportWanted(what="sales"))
        await clock.advance(hours=1)

    assert runs[0] == 60.0
    assert len(runs) == 2
    assert broker.dead_letters() == ()
    (letter,) = broker.dead_letters("reports")
    assert letter.subject == "events-dlq-reports.app.report.report.wanted"


def _broker(events: EventService) -> MemoryBroker:
    connections = events._connections
    assert connections is not None
    driver = connections.default.driver
    assert isinstance(driver, MemoryDriver)
    return driver.broker


async def test_run_once_makes_a_dead_letter_of_the_first_failure() -> None:
    clock = VirtualClock()
    attempts: list[int] = []
    once = DriverConfig(driver="memory", run_once=True)
    events = EventService("app", settings=MEMORY, drivers={"once": once}, clock=clock)

    @events.subscribe(UserCreated, connection="once", retry=Retry(attempts=5))
    async def user(event: UserCreated, context: Context) -> None:
        attempts.append(context.attempt)
        raise LookupError

    async with events:
        broker = _broker(events)
        await events.emit(UserCreated(user_id="u-1"), driver="once")
        await clock.advance(hours=1)

    assert attempts == [1]
    assert len(broker.dead_letters()) == 1


async def test_a_listener_on_a_connection_hears_that_one_alone() -> None:
    clock = VirtualClock()
    heard: list[str] = []
    events = EventService("app", settings=MEMORY, clock=clock)

    @events.subscribe(UserCreated, connection="queue")
    async def queued(event: UserCreated) -> None:
        heard.append("queued")

    @events.subscribe(UserCreated, connection="sync")
    async def at_once(event: UserCreated) -> None:
        heard.append("at once")

    @events.subscribe(UserCreated)
    async def either(event: UserCreated) -> None:
        heard.append("either")

    async with events:
        await events.emit(UserCreated(user_id="u-1"), driver="sync")
        await clock.settle()
        by_sync, heard[:] = list(heard), []
        await events.emit(UserCreated(user_id="u-2"))
        await clock.settle()

    assert by_sync == ["at once", "either"]
    assert sorted(heard) == ["either", "queued"]


async def test_only_the_listeners_of_a_queue_are_worked() -> None:
    clock = VirtualClock()
    heard: list[str] = []
    drivers = {"mails": DriverConfig(driver="memory", queue="emails")}
    events = EventService("app", settings=MEMORY, drivers=drivers, clock=clock)

    @events.subscribe(UserCreated, connection="mails")
    async def mail(event: UserCreated) -> None:
        heard.append("mail")

    @events.subscribe(UserCreated)
    async def other(event: UserCreated) -> None:
        heard.append("other")

    events.work_only(["emails"])
    async with events:
        await events.emit(UserCreated(user_id="u-1"))
        await clock.settle()

    assert heard == ["mail"]


async def test_a_driver_may_be_given_as_it_is_under_a_name() -> None:
    clock = VirtualClock()
    monitored = Monitored(SyncDriver(), clock=clock)
    heard: list[str] = []
    events = EventService("app", settings=MEMORY, drivers={"sync": monitored}, clock=clock)

    @events.subscribe(UserCreated)
    async def user(event: UserCreated) -> None:
        heard.append(event.user_id)

    async with events:
        await events.emit(UserCreated(user_id="u-1"), driver="sync")

    assert heard == ["u-1"]
    assert monitored.monitoring.successes == 1


async def test_the_environment_names_connections_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTBUS_DRIVERS", '{"slow": {"driver": "memory", "queue": "slow"}}')
    monkeypatch.setenv("APP_EVENT_DRIVER", "memory")
    clock = VirtualClock()
    events = EventService("app", clock=clock)

    @events.subscribe(ReportWanted)
    async def report(event: ReportWanted) -> None: ...

    async with events:
        receipt = await events.emit(ReportWanted(what="sales"))

    assert receipt.driver == "memory"
    assert events.queues() == {"slow"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("slow", "must be JSON"),
        ('{"slow": {"attempts": 0}}', "attempts"),
        ('{"slow": {"retires": 3}}', "retires"),
    ],
)
def test_a_wrong_configuration_in_the_environment_is_named(
    text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTBUS_DRIVERS", text)

    with pytest.raises(SettingsError, match=problem):
        Settings.load()


@pytest.mark.parametrize(
    "options",
    [
        {"run_once": True, "attempts": 3},
        {"run_after": "soon"},
        {"failed_queue": "Other Queue"},
        {"queue": "a b"},
        {"failed_queue": "a", "settings": {"failed_queue": "b"}},
    ],
)
def test_options_are_checked_when_they_are_written(options: dict[str, object]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        DriverConfig.model_validate(options)


@pytest.mark.parametrize(
    ("config", "option"),
    [
        (DriverConfig(driver="sync", attempts=5), "attempts="),
        (DriverConfig(driver="sync", failed_queue="other"), "failed_queue="),
    ],
)
async def test_what_a_driver_cannot_do_is_refused_when_the_service_starts(
    config: DriverConfig, option: str
) -> None:
    events = EventService("app", settings=MEMORY, drivers={"other": config})

    with pytest.raises(UnsupportedError, match=option):
        await events.start()


async def test_a_setting_of_a_configuration_is_checked_at_start() -> None:
    drivers = {"other": DriverConfig(driver="memory", settings={"nmaespace": "x"})}
    events = EventService("app", settings=MEMORY, drivers=drivers)

    with pytest.raises(SettingsError, match="did you mean 'namespace'"):
        await events.start()


async def test_a_listener_that_names_an_unknown_connection_is_refused() -> None:
    events = EventService("app", settings=MEMORY)

    @events.subscribe(UserCreated, connection="qeue")
    async def user(event: UserCreated) -> None: ...

    with pytest.raises(DeclarationError, match=r"no connection 'qeue'.*did you mean 'queue'"):
        await events.start()


async def test_an_unknown_driver_names_those_there_are() -> None:
    events = EventService("app", settings=Settings(driver="memroy"))

    with pytest.raises(SettingsError, match=r"known: jetstream, queue, memory, sync"):
        await events.start()
