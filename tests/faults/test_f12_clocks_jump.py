"""F12: the wall clock jumps by an hour, forth and back, under a relay."""

import itertools
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eventbus import EventService
from eventbus.clock import SystemClock
from eventbus.embedded import NatsServer
from eventbus.telemetry.outbox import OutboxMeasured, Relayed
from tests.faults.harness.bank import Bank, service
from tests.faults.harness.ground import Ground
from tests.faults.harness.step import StepTaken
from tests.waiting import eventually

if TYPE_CHECKING:
    from eventbus.telemetry.signals import Happened

pytestmark = [pytest.mark.faults, pytest.mark.nats]


class JumpingClock(SystemClock):
    """A clock that somebody sets wrongly, and right again, all the time."""

    def __init__(self) -> None:
        self._jumps = itertools.cycle((0, 3600, -3600, 600))

    def now(self) -> datetime:
        """Return a time that may be an hour off."""
        return super().now() + timedelta(seconds=next(self._jumps))


async def test_f12_what_is_committed_goes_while_the_clock_jumps(
    nats_server: NatsServer, database_url: str, tmp_path: Path
) -> None:
    told: list[Happened] = []
    steps = [StepTaken(thread=f"t{n % 5}", number=n) for n in range(60)]
    async with Bank.open(nats_server.url, database_url, tmp_path) as bank:
        settings = service(nats_server.url, database_url, relay=True).settings
        events = EventService(
            "bank", settings=settings, relay=True, clock=JumpingClock(), observers=[told.append]
        )
        async with events:
            for step in steps:
                async with bank.engine.begin() as connection, events.transaction(connection):
                    await events.emit(step)
            await bank.relayed()

            async def measured() -> bool:
                return any(isinstance(one, OutboxMeasured) for one in told)

            await eventually(measured)

    found = [one.mark for one in await Ground(nats_server.url).stored()]
    assert sorted(found) == sorted(step.mark for step in steps)
    relayed = [one for one in told if isinstance(one, Relayed)]
    assert len(relayed) == 60
    assert all(one.waited >= 0 for one in relayed)
    assert all(one.oldest >= 0 for one in told if isinstance(one, OutboxMeasured))
