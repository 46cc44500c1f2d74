"""Runs the suites of the JetStream driver on both ways to the socket."""

import pytest

BOTH_WAYS = (
    "test_emit",
    "test_emit_many",
    "test_jetstream_acks",
    "test_jetstream_consumer",
    "test_jetstream_faults",
    "test_jetstream_publisher",
    "test_jetstream_settling",
)
"""Modules whose every test runs past nats-py's queues, and again through its public API."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS:
        metafunc.fixturenames.insert(0, "way")
        metafunc.parametrize("way", ["lane", "plain"], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EVENTBUS_FAST_LANE", str(request.param == "lane"))
    return str(request.param)
