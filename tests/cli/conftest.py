"""A project to run commands in."""

from pathlib import Path

import pytest

from tests.cli.shell import PROJECT, project


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with ``schemas`` and ``services``."""
    return project(tmp_path, PROJECT)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder without any event or service."""
    return project(tmp_path, {})
