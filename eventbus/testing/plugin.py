"""Fixtures for pytest: services on the memory driver or on a real nats-server, by an option.

In a ``conftest.py``: ``pytest_plugins = ("eventbus.testing.plugin",)``. Then ``--eventbus=memory``
(the default) runs every test that uses `event_service` or `eventbus_settings` in memory,
``--eventbus=real`` against a server, and ``--eventbus=both`` each test both ways.
``@pytest.mark.eventbus("real")`` says that a test works one way only.
"""

import os
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import pytest

from eventbus.embedded import NatsServer, find_server
from eventbus.errors import ServerNotFoundError
from eventbus.service import EventService

if TYPE_CHECKING:
    from eventbus.settings import Settings

__all__ = (
    "event_service",
    "eventbus_settings",
    "nats_server",
    "pytest_addoption",
    "pytest_configure",
    "pytest_generate_tests",
)

MODES = ("memory", "real")
MAX_BYTES = 16 * 2**20
"""The size of a test's streams: one server has to hold those of many tests."""
_NUMBERS = count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--eventbus``."""
    parser.getgroup("eventbus").addoption(
        "--eventbus",
        choices=(*MODES, "both"),
        default="memory",
        help="run tests of services in memory (the default), on a real nats-server, or both ways",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "eventbus(mode): works 'memory' or 'real' only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test in each mode that is asked for and that it works in."""
    if "eventbus_mode" not in metafunc.fixturenames:
        return
    asked = str(metafunc.config.getoption("--eventbus"))
    marker = metafunc.definition.get_closest_marker("eventbus")
    works = marker.args if marker is not None else MODES
    modes = [mode for mode in MODES if mode in works and asked in (mode, "both")]
    why = pytest.mark.skip(f"works with --eventbus={'|'.join(works)}")
    metafunc.parametrize("eventbus_mode", modes or [pytest.param(works[0], marks=why)])


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """Give a nats-server with JetStream, one for each worker process of pytest-xdist.

    Without a server the test is skipped; where ``CI`` is set it fails.
    """
    try:
        find_server()
    except ServerNotFoundError as exc:
        if os.environ.get("CI"):
            pytest.fail(f"CI has to test against a real server: {exc}")
        pytest.skip(str(exc))
    with NatsServer() as server:
        yield server


@pytest.fixture
def eventbus_settings(eventbus_mode: str, request: pytest.FixtureRequest) -> "Settings":
    """Give settings for the services of one test, in a namespace of its own."""
    from eventbus.settings import Settings

    namespace = f"test{os.getpid()}_{next(_NUMBERS)}"
    if eventbus_mode == "memory":
        return Settings(driver="memory", namespace=namespace, max_bytes=MAX_BYTES)
    server: NatsServer = request.getfixturevalue("nats_server")
    return Settings(
        driver="jetstream", nats_url=server.url, namespace=namespace, max_bytes=MAX_BYTES
    )


@pytest.fixture
def event_service(eventbus_settings: "Settings") -> EventService:
    """Give a service named ``tests``, not started: ``async with event_service: ...``."""
    return EventService("tests", settings=eventbus_settings)
