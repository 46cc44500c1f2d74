"""A house of services on a server of its own."""

from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.services.house import House


@pytest.fixture
def house(nats_server: NatsServer, tmp_path: Path) -> House:
    return House(nats_server.url, tmp_path)
