"""A house of services, in memory and on a server of its own."""

from pathlib import Path

import pytest

from eventbus.settings import Settings
from tests.services.house import House


@pytest.fixture
def house(eventbus_settings: Settings, tmp_path: Path) -> House:
    return House(eventbus_settings, tmp_path)
