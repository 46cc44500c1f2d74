"""The demo from the first step to the exit code."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from eventbus.cli.demo import deliveries, report, tree
from eventbus.cli.demo.account import Account, Holdings, account_of
from eventbus.cli.demo.http import UnreachableError
from eventbus.cli.demo.reading import consumers_of, holdings_of
from eventbus.cli.demo.scrape import Samples
from eventbus.cli.demo.screen import Screen
from eventbus.cli.demo.survival import Survival, survive
from eventbus.cli.demo.system import SERVICES, System, forget_settings, require_services, running
from eventbus.cli.demo.traffic import Traffic
from eventbus.drivers.jetstream.admin import Admin
from eventbus.ops.connect import reading
from eventbus.runner import Stop
from eventbus.settings import Settings

__all__ = ("Demo",)

SETTLE_PATIENCE = 60.0
"""Seconds until what isn't handled after the last request counts as lost."""
WATCH_EVERY = 1.0
POLL = 0.2


@dataclass(frozen=True, slots=True)
class _Outcome:
    account: Account
    holdings: Holdings
    refused: Sequence[str]
    """Requests that got another answer than they should."""
    survival: Survival

    @property
    def problems(self) -> list[str]:
        return [*self.account.problems(), *self.refused, *self.survival.problems()]


class Demo:
    """One run of the demo.

    Args:
        file: Deliveries to send instead of those made up for the demo.
        keep: Leave the system running until the order to stop.

    Raises:
        ConfigurationError: The services aren't here, or the file can't be read.
    """

    def __init__(self, *, file: Path | None, keep: bool) -> None:
        self._root = require_services()
        self._deliveries = deliveries.read(file) if file else deliveries.made_up()
        self._keep = keep
        self._screen = Screen()

    async def run(self, stop: Stop) -> int:
        """Play, and return the exit code: 0, 1 where anything is lost, or a signal's.

        Raises:
            ExceptionGroup: A service or the server failed.
        """
        forget_settings()
        self._screen.step(f"starting a nats-server and {len(SERVICES)} services")
        async with running(self._root) as system:
            outcome = await stop.before(self._play(system))
            if outcome is None:
                return stop.code
            self._report(outcome, system)
            if self._keep:
                self._screen.step("everything stays up until Ctrl-C")
                await stop.wait()
        return 1 if outcome.problems else 0

    async def _play(self, system: System) -> _Outcome:
        await system.ready()
        with chdir(system.folder):  # where no .env is
            settings = Settings.load(nats_url=system.server.url)
        traffic = Traffic(system.http, system.secret, self._deliveries)
        async with reading(settings) as admin:
            with self._screen.live():
                await self._send(traffic, system)
                self._screen.step(f"{traffic.requests} requests sent; waiting for the listeners")
                account, holdings = await _settled(system, admin, settings)
                survival = await survive(system, admin, settings, self._screen)
        return _Outcome(account, holdings, traffic.refused, survival)

    async def _send(self, traffic: Traffic, system: System) -> None:
        self._screen.step(
            "users sign up, vendors are approved, payments fail, orders sell out, GitHub delivers "
            f"{len(self._deliveries)} webhooks"
        )
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(system))
            await traffic.run()
            watching.cancel()

    async def _watch(self, system: System) -> None:
        """Show what the services count, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            try:
                self._screen.now(_progress(await system.scrape()))
            except UnreachableError as exc:
                self._screen.now(str(exc))

    def _report(self, outcome: _Outcome, system: System) -> None:
        account, holdings = outcome.account, outcome.holdings
        self._screen.lines([""])
        self._screen.show(report.table(account))
        self._screen.lines([""])
        self._screen.lines(report.explained(account))
        id = tree.telling(holdings.events, holdings.consumers)
        if id is not None:
            self._screen.lines(["", *tree.story(id, holdings), ""])
        self._screen.lines([*outcome.survival.lines(), ""])
        self._screen.lines(f"lost: {one}" for one in outcome.problems)
        if not outcome.problems:
            self._screen.lines(
                [
                    "Nothing is lost: each event is handled by every listener that takes it, or kept."
                ]
            )
        gone = "" if self._keep else " was here, and with --keep everything stays up"
        self._screen.lines([f"/metrics of each service{gone}:", *report.places(system)])


async def _settled(system: System, admin: Admin, settings: Settings) -> tuple[Account, Holdings]:
    """Return the account once it is complete, or as it is when that takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_PATIENCE
    while True:
        late = loop.time() > deadline
        if late or not any(one.unsettled for one in await consumers_of(admin)):
            holdings = await holdings_of(admin, settings.subjects, system.audit_database)
            account = account_of(holdings, await system.scrape())
            if late or account.complete:
                return account, holdings
        await asyncio.sleep(POLL)


def _progress(metrics: Mapping[str, Samples]) -> str:
    def count(name: str, **labels: str) -> int:
        return sum(one.total(name, **labels) for one in metrics.values())

    processed = "eventbus_processed_total"
    retried = count(processed, outcome="retry") + count(processed, outcome="park")
    return (
        f"emitted {count('eventbus_emitted_total', outcome='ok')}, "
        f"handled {count(processed, outcome='ok')}, retried {retried}, "
        f"dead letters {count('eventbus_dead_letters_total')}"
    )
