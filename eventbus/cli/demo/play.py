"""The demo from the first step to the exit code."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eventbus.cli.demo import deliveries, report, tree
from eventbus.cli.demo.account import Account, account_of
from eventbus.cli.demo.http import UnreachableError
from eventbus.cli.demo.reading import Holdings, consumers_of, holdings_of
from eventbus.cli.demo.screen import Screen
from eventbus.cli.demo.system import System, forget_settings, require_services, running
from eventbus.cli.demo.traffic import Traffic
from eventbus.drivers.jetstream.admin import Admin
from eventbus.ops.connect import reading
from eventbus.runner import Stop
from eventbus.settings import Settings

__all__ = ("Demo",)

SETTLE_PATIENCE = 20.0
"""Seconds until what isn't handled after the last request counts as lost."""
WATCH_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    account: Account
    holdings: Holdings
    refused: Sequence[str]


class Demo:
    """One run of the demo.

    Args:
        file: Deliveries to send instead of those made up for the demo.
        keep: Leave the system running until the order to stop.
    """

    def __init__(self, *, file: Path | None, keep: bool) -> None:
        self._root = require_services()
        self._deliveries = deliveries.read(file) if file else deliveries.made_up()
        self._keep = keep
        self._screen = Screen()

    async def run(self, stop: Stop) -> int:
        """Play, and return the exit code: 1 where anything is lost, or a signal's."""
        forget_settings()
        async with asyncio.TaskGroup() as group:
            playing = group.create_task(self._play(stop))
            stopping = group.create_task(stop.wait())
            await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not playing.done() and not self._kept:
                playing.cancel()
        return stop.code if playing.cancelled() else playing.result()
