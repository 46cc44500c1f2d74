"""One real server for all that is compared with it."""

from collections.abc import Iterator

import pytest

from eventbus.embedded import NatsServer


@pytest.fixture(scope="session")
def shared_server(_nats_binary: None) -> Iterator[NatsServer]:
    """Give a server; each test has a namespace of its own on it."""
    with NatsServer() as server:
        yield server
