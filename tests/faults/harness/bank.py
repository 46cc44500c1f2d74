"""Writers, relays and listeners as processes that can be killed, and what they have committed."""

import asyncio
import json
import os
import random
import signal
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, String, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from eventbus import Context, EventService, Retry
from eventbus.settings import Settings
from eventbus.stores.sql import outbox as sql_outbox
from eventbus.stores.sql.engine import create_tables, opened, reading
from eventbus.stores.sql.tables import outbox
from tests.faults.harness.forking import Forker, fork_what_is_ordered
from tests.faults.harness.ground import ApiRefusedError, Ground
from tests.faults.harness.history import Entry, FileLedger, History, What
from tests.faults.harness.pace import patience
from tests.faults.harness.step import StepTaken
from tests.waiting import comes_true, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

__all__ = ("Bank", "bookings", "in_order", "service")

_metadata = MetaData()
bookings = Table("bookings", _metadata, Column("mark", String(64), primary_key=True))
"""What the application writes, in the transaction in which it emits."""
effects = Table("effects", _metadata, Column("mark", String(64), nullable=False))
"""What a listener writes; nothing in the table keeps it from writing twice."""
PATIENCE = 60.0
DURABLE = "bank__book"
KILLED = "killed"
LINES = 40
"""Of the processes' log, in a message."""


def service(server: str, database: str, *, relay: bool, namespace: str = "events") -> EventService:
    """Return the service that writers and relays are."""
    settings = Settings(
        nats_url=server,
        namespace=namespace,
        store_url=database,
        emit_timeout=15.0,
        publish_timeout=0.5,
        grace=5.0,
        max_bytes=64 * 1024 * 1024,
    )
    return EventService("bank", settings=settings, relay=relay)


class Bank:
    """Forks writers and relays, kills them, and compares what was committed with the stream."""

    def __init__(
        self, server: str, database: str, folder: Path, namespace: str = "events"
    ) -> None:
        self._given = (server, database, namespace)
        self._namespace = namespace
        self._threads = 0
        self._ground = Ground(server)
        self._ledger = folder / "bank.jsonl"
        self._told = History()
        self._told.follow(self._ledger)
        self._log_file = folder / "bank.log"
        self._forker = Forker("tests.faults.harness.bank", self._log_file)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, server: str, database: str, folder: Path, *, namespace: str = "events"
    ) -> "AsyncIterator[Bank]":
        """Give a bank on an empty database."""
        async with opened(database) as engine:
            await create_tables(engine)
            await create_tables(engine, _metadata)
            bank = cls(server, database, folder, namespace)
            bank.engine = engine
            try:
                yield bank
            finally:
                await bank.close()

    engine: AsyncEngine

    @property
    def _steps(self) -> str:
        return f"{self._namespace}.step.>"

    @property
    def _stream(self) -> str:
        return self._namespace.upper()

    async def writer(self, pause: float = 0.0) -> int:
        """Start a process that books and emits, pausing in between; return its number."""
        self._threads += 1
        return await self._fork("writer", f"w{self._threads}", pause)

    async def relay(self, frozen: float = 0.0) -> int:
        """Start a process that relays; return its number.

        PostgreSQL takes its claim from it when it has been frozen for so long.
        """
        return await self._fork("relay", "", frozen)

    async def listener(self) -> int:
        """Start a process whose listener has an effect for each step; return its number."""
        return await self._fork("listener", "")

    async def effects(self) -> list[str]:
        """Return the marks of the effects that are committed."""
        async with reading(self.engine).connect() as connection:
            return sorted(await connection.scalars(select(effects.c.mark)))

    async def _fork(self, role: str, thread: str, seconds: float = 0.0) -> int:
        return await self._forker.fork([role, self._given, thread, seconds, str(self._ledger)])

    async def kill_soon(self, process: int, chance: random.Random) -> None:
        """End a process as a crash would, at a random point of its work."""
        await asyncio.sleep(chance.uniform(0.02, 0.4))
        self.kill(process)

    def kill(self, process: int) -> None:
        """End a process as a crash would."""
        os.kill(process, signal.SIGKILL)
        self._told.write(Entry(What.STOPPED, detail=KILLED, process=process))

    def freeze(self, process: int) -> None:
        """Stop all of a process, in the middle of whatever it does."""
        os.kill(process, signal.SIGSTOP)

    def thaw(self, process: int) -> None:
        """Let a process go on."""
        os.kill(process, signal.SIGCONT)

    async def committed(self) -> list[str]:
        """Return the marks of what was booked."""
        async with reading(self.engine).connect() as connection:
            return sorted(await connection.scalars(select(bookings.c.mark)))

    async def gone(self) -> set[str]:
        """Return the marks of what was booked, and isn't in the outbox any more."""
        async with reading(self.engine).connect() as connection:
            # First what is booked: what is booked in between, and waits, isn't gone by mistake.
            booked = set(await connection.scalars(select(bookings.c.mark)))
            bodies = (await connection.scalars(select(outbox.c.body))).all()
        return booked - {StepTaken.model_validate_json(one).mark for one in bodies}

    async def waiting(self) -> int:
        """Return how many events wait in the outbox, those set aside included."""
        async with reading(self.engine).connect() as connection:
            return len((await connection.scalars(select(outbox.c.sequence))).all())

    async def books(self, more: int = 1) -> None:
        """Wait until so much more is committed."""
        wanted = len(await self.committed()) + more
        await self._until(self._has(wanted), f"{more} more bookings")

    async def stored(self) -> list[str]:
        """Return the marks of what is stored, in the order of the stream."""
        return [one.mark for one in await self._ground.stored(self._steps, self._stream)]

    async def settled(self) -> tuple[list[str], list[str]]:
        """Return what is committed and what is stored, once nothing is on its way there."""

        async def same() -> bool:
            # A commit may arrive after its writer has died.
            await self.relayed()
            return len(await self.committed()) == len(await self.stored())

        await eventually(same, PATIENCE)
        return await self.committed(), await self.stored()

    async def takes(self, more: int = 1) -> None:
        """Wait until so much more has its effect."""
        wanted = len(await self.effects()) + more

        async def has() -> bool:
            return len(await self.effects()) >= wanted

        await self._until(has, f"{more} more effects")

    async def begins(self, process: int) -> None:
        """Wait until a listener begins with an event."""
        begun = self._begun_in(process)

        async def more() -> bool:
            return self._begun_in(process) > begun

        await self._until(more, f"run in process {process}")

    def _begun_in(self, process: int) -> int:
        self._told.refresh()
        return sum(one.process == process for one in self._told.of(What.BEGUN))

    async def handled(self, marks: "Collection[str]") -> None:
        """Wait until each of them has an effect, and nothing is on its way to the listener.

        Then none can come again: what a dead listener held is on its way until it is settled.
        """

        async def all_have_effects() -> bool:
            if not set(marks) <= set(await self.effects()):
                return False
            return not await self._ground.backlog(DURABLE, self._stream)

        async def missing() -> str:
            left = sorted(set(marks) - set(await self.effects()))
            return f"without effect: {left}\n{await self.account(left)}"

        await eventually(all_have_effects, PATIENCE, state=missing)

    async def account(self, marks: "Collection[str]") -> str:
        """Return all that is known of events: their runs, dead letters, durable, and the log."""
        self._told.refresh()
        runs = [one for one in self._told.of(What.BEGUN) if one.mark in marks]
        killed = {one.process: one.at for one in self._told.of(What.STOPPED)}
        lines = [
            f"{one.at:.3f} {one.mark} {one.what} in {one.process}, attempt {one.attempt}"
            f"{f', killed at {killed[one.process]:.3f}' if one.process in killed else ''}"
            for one in runs
        ]
        letters = [one for one in await self._ground.letters() if one.mark in marks]
        lines += [f"dead letter: {one.mark} {one.reason} {one.error}" for one in letters]
        with suppress(ApiRefusedError):
            lines.append(f"the durable: {await self._ground.durable(DURABLE, self._stream)}")
        lines += self._log_file.read_text(errors="replace").splitlines()[-LINES:]
        return "\n".join(lines)

    async def relayed(self) -> None:
        """Wait until nothing waits any more."""
        await self._until(self._is_empty, "an empty outbox")

    async def relays(self, some: int) -> None:
        """Wait until so many events have left the outbox."""

        async def left() -> bool:
            return len(await self.gone()) >= some

        await self._until(left, f"{some} relayed events")

    def _has(self, wanted: int) -> "Callable[[], Awaitable[bool]]":
        async def has() -> bool:
            return len(await self.committed()) >= wanted

        return has

    async def _is_empty(self) -> bool:
        return not await self.waiting()

    async def _until(self, condition: "Callable[[], Awaitable[bool]]", wanted: str) -> None:
        if not await comes_true(condition, PATIENCE):
            raise AssertionError(f"I1: no {wanted} within {PATIENCE * patience():.0f} s")

    async def close(self) -> None:
        """End all processes."""
        await self._forker.close()


def in_order(marks: list[str]) -> bool:
    """Tell whether the numbers of each thread only rise."""
    reached: dict[str, int] = {}
    for mark in marks:
        thread, _, number = mark.partition(":")
        if int(number) <= reached.get(thread, 0):
            return False
        reached[thread] = int(number)
    return True


async def _write(events: EventService, thread: str, pause: float) -> None:
    number = 0
    async with events, opened(events.settings.store_url) as engine:
        while True:
            number += 1
            await asyncio.sleep(pause)
            step = StepTaken(thread=thread, number=number)
            async with engine.begin() as connection, events.transaction(connection):
                await connection.execute(insert(bookings), {"mark": step.mark})
                await events.emit(step)


def _listener(events: EventService, ledger: FileLedger) -> EventService:
    # Whoever is killed all the time has, by chance, the same event in hand five times in a row,
    # which then is a dead letter, as promised (reason `crash`). Here none may be given up.
    tireless = Retry(attempts=1000, start=0.1, cap=1.0)

    @events.subscribe(
        StepTaken, inbox=True, ack_wait=1, concurrency=1, start="all", retry=tireless
    )
    async def book(event: StepTaken, context: Context) -> None:
        ledger.write(Entry(What.BEGUN, event.mark, attempt=context.attempt))
        await context.session.execute(insert(effects), {"mark": event.mark})
        await asyncio.sleep(event.seconds)

    return events


def _become(
    role: str, given: tuple[str, str, str], thread: str, seconds: float, ledger: str
) -> None:
    server, database, namespace = given
    events = service(server, database, relay=role == "relay", namespace=namespace)
    match role:
        case "writer":
            asyncio.run(_write(events, thread, seconds))
        case "listener":
            asyncio.run(_listener(events, FileLedger(Path(ledger))).run())
        case _:
            if seconds:
                sql_outbox.FROZEN = f"{seconds:g}s"
            asyncio.run(events.run())


def _work(order: str) -> None:
    _become(*json.loads(order))


if __name__ == "__main__":
    fork_what_is_ordered(_work)
