"""What all fault cases share: their stage, and the profile in which each of them has to fail."""

from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.faults.harness.profile import NAIVE
from tests.faults.harness.stage import Stage
from tests.faults.teeth import judged, summary, with_reason


@pytest.fixture
async def stage(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Stage]:
    """Give a stage with a server of its own."""
    stage = Stage(nats_server.url, tmp_path)
    yield stage
    await stage.close()


LONGEST = 60 if NAIVE else 300
"""Seconds that a case may take on a busy machine; on an idle one each ends within a minute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the cases their time; on a naive bus leave out what says nothing about it."""
    for item in items:
        if item.get_closest_marker("faults") is not None:
            item.add_marker(pytest.mark.timeout(LONGEST))
    if NAIVE:
        with_reason(items)


if NAIVE:

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn the verdict round: a case that passes has no teeth."""
        return judged((yield), call)

    def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
        """Say what each case found on the naive bus."""
        terminalreporter.section("the naive bus")
        for line in summary(terminalreporter.getreports("passed")):
            terminalreporter.write_line(line)
