"""The pytest plugin, as somebody else's project uses it."""

import pytest

pytestmark = pytest.mark.nats

CONFTEST = 'pytest_plugins = ("eventbus.testing.plugin",)'
TESTS = """
import asyncio

import pytest

from eventbus import Event, EventService, Settings


class UserCreated(Event, name="user.created"):
    user_id: str


def play(events: EventService) -> str:
    async def emit() -> str:
        heard: list[str] = []

        async def welcome(event: UserCreated) -> None:
            heard.append(event.user_id)

        events.subscribe(UserCreated, welcome)
        async with events, events.track():
            receipt = await events.emit(UserCreated(user_id="u-1"))
        assert heard == ["u-1"]
        return receipt.driver

    return asyncio.run(emit())


def test_any(event_service: EventService, eventbus_mode: str) -> None:
    assert play(event_service) == {"memory": "memory", "real": "jetstream"}[eventbus_mode]


@pytest.mark.eventbus("real")
def test_real(event_service: EventService) -> None:
    assert play(event_service) == "jetstream"


@pytest.mark.eventbus("memory")
def test_apart(eventbus_settings: Settings) -> None:
    assert play(EventService("mine", settings=eventbus_settings)) == "memory"


def test_plain() -> None:
    pass
"""


@pytest.mark.parametrize(
    ("option", "passed", "skipped"),
    [((), 3, 1), (("--eventbus=real",), 3, 1), (("--eventbus=both",), 5, 0)],
)
def test_an_option_says_what_the_tests_of_a_project_run_on(
    pytester: pytest.Pytester, option: tuple[str, ...], passed: int, skipped: int
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)

    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", *option)

    done.assert_outcomes(passed=passed, skipped=skipped)
