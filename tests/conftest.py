"""Fixtures that every folder of tests shares."""

import os
from collections.abc import Iterator

import pytest

from eventbus.embedded import NatsServer, find_server
from eventbus.errors import ServerNotFoundError


@pytest.fixture(scope="session")
def _nats_binary() -> None:
    """Skip on a laptop, and fail in CI, where there is no nats-server."""
    try:
        find_server()
    except ServerNotFoundError as exc:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to test against a real server: {exc}")
        pytest.skip(str(exc))


@pytest.fixture
def nats_server(_nats_binary: None) -> Iterator[NatsServer]:
    """Give each test a server of its own, with JetStream in a fresh temporary folder."""
    with NatsServer() as server:
        yield server
