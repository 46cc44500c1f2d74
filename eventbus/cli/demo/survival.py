"""The demo's second act: payment and notification are killed at the worst moment, and go on."""

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from eventbus.cli.demo.account import Holdings, unaudited
from eventbus.cli.demo.http import Answer, UnreachableError, send
from eventbus.cli.demo.reading import holdings_of
from eventbus.cli.demo.screen import Screen
from eventbus.cli.demo.system import System
from eventbus.drivers.jetstream.admin import Admin
from eventbus.settings import Settings

__all__ = ("Books", "Survival", "survive")

PAYMENTS = 8
SLOW = "buyer@slow.example"
"""Its mail server answers a second after it has taken a mail."""
DECLINED = "4000000000000002"
PATIENCE = 60.0
POLL = 0.05
TICK = "statement.due"

_Rows = list[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Books:
    """What databases, mailbox and stream hold; each is to hold the same."""

    charges: Sequence[str]
    """Ids of payments that are committed."""
    payments: Sequence[str]
    """Ids of payments that the stream has an event of."""
    waiting: int
    """Events in the outboxes."""
    sent: Sequence[str]
    """Ids of mails that have a row."""
    mails: int
    """Mails in the mailbox."""
    told: Sequence[str]
    """Ids of mails that the stream has an event of."""
    ticks: Sequence[str]
    """Times of the recurring event."""
    unaudited: int

    def problems(self) -> list[str]:
        """Say what is lost or doubled."""
        found = [
            *_differences(self.charges, self.payments, "charges", "events"),
            *_differences(self.sent, self.told, "rows of sent mails", "events"),
        ]
        if len(self.sent) != self.mails:
            found.append(f"{len(self.sent)} rows of sent mails and {self.mails} mails")
        if len(self.ticks) != len(set(self.ticks)):
            found.append(f"{len(self.ticks)} {TICK} at {len(set(self.ticks))} times")
        if self.waiting:
            found.append(f"{self.waiting} events still wait in an outbox")
        if self.unaudited:
            found.append(f"{self.unaudited} events aren't in the audit trail")
        return found


@dataclass(frozen=True, slots=True)
class Survival:
    """What the kills left behind, and what came of it."""

    committed: int
    """Charges that were committed when payment was killed."""
    waiting: int
    """How many of their events hadn't left the outbox."""
    half_sent: int
    """Mails that were out and had no row when notification was killed."""
    books: Books
    refused: Sequence[str] = ()
    """Requests that got another answer than they should."""

    def problems(self) -> list[str]:
        """Say what is lost or doubled."""
        return [*self.books.problems(), *self.refused]

    def lines(self) -> list[str]:
        """Say what happened."""
        books = self.books
        end = "" if self.books.problems() else ", each once"
        return [
            f"notification was killed (-9) with {_counted(self.half_sent, 'mail')} just out and "
            "not yet in its database",
            f"payment was killed (-9) with {_counted(self.committed, 'charge')} just committed "
            f"and {_counted(self.waiting, 'event')} still in its outbox",
            "both started again; of the whole demo there are now",
            f"  {_compared({'charges': books.charges, 'payment.*': books.payments})}{end}",
            f"  {_compared({'rows of mails': books.sent, 'email.sent': books.told})}"
            f" = {books.mails} mails{end}",
            f"  {len(books.ticks)} {TICK}, which two processes of payment declare{end}",
        ]


async def survive(system: System, admin: Admin, settings: Settings, screen: Screen) -> Survival:
    """Kill notification in the middle of a mail, then payment between a commit and its publish.

    Start both again, and return once all is as it should be, or after a minute.

    Raises:
        ServiceEndedError: One doesn't start again.
    """
    screen.step("notification is killed in the middle of a mail")
    refused = await _charge_slowly(system)
    half_sent = await asyncio.to_thread(_kill_in_a_mail, system)
    screen.step("payment is killed between a commit and its publish")
    await asyncio.to_thread(_wait, lambda: not _waiting(system))
    before = len(_charges(system))
    await _charge_and_kill(system)
    committed, waiting = len(_charges(system)) - before, _waiting(system)
    screen.step("both are started again")
    await system.restart("payment", "payment-2", "notification")
    books = await _balanced(system, admin, settings)
    return Survival(committed, waiting, half_sent, books, refused)


async def _charge_slowly(system: System) -> list[str]:
    answer = await _charge(system, SLOW)
    return [] if answer.status == 402 else [f"POST /payments answered {answer.status}, not 402"]


async def _charge(system: System, email: str) -> Answer:
    charge = {"email": email, "amount": 100, "currency": "EUR", "card": DECLINED}
    return await send("POST", system.http["payment"] + "/payments", charge)


def _kill_in_a_mail(system: System) -> int:
    """Kill notification once a mail is out; return how many are without a row then."""
    new = system.maildir / "new"
    before = len(_sent(system))
    _wait(lambda: len(list(new.iterdir())) > before)
    system.kill("notification")
    return len(list(new.iterdir())) - len(_sent(system))


async def _charge_and_kill(system: System) -> None:
    """Kill the processes of payment as soon as a charge is committed."""

    async def charge(number: int) -> None:
        # It is killed before it can answer; the database says what became of it.
        with suppress(UnreachableError):
            await _charge(system, f"late{number}@mail.example")

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(_kill_once_committed, system))
        for number in range(PAYMENTS):
            group.create_task(charge(number))


def _kill_once_committed(system: System) -> None:
    with closing(sqlite3.connect(system.database("payment"))) as reader:
        query = "SELECT count(*) FROM eventbus_outbox WHERE name = 'payment.failed'"
        _wait(lambda: reader.execute(query).fetchone()[0] > 0, poll=0)
    system.kill("payment", "payment-2")


def _wait(condition: Callable[[], bool], poll: float = 0.005) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(poll)


async def _balanced(system: System, admin: Admin, settings: Settings) -> Books:
    """Return the books once they agree, or as they are when that takes too long."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        books = await _read(system, admin, settings)
        if not books.problems() or asyncio.get_running_loop().time() > deadline:
            return books
        await asyncio.sleep(POLL)


async def _read(system: System, admin: Admin, settings: Settings) -> Books:
    subjects = settings.subjects
    bodies = [
        json.loads(one.message.body)
        async for one in admin.messages(subjects.stream, subjects.event("payment.>"))
    ]
    told = [
        json.loads(one.message.body)["message_id"]
        async for one in admin.messages(subjects.stream, subjects.event("email.sent"))
    ]
    holdings = await holdings_of(admin, subjects, system.audit_database)
    return Books(
        charges=_charges(system),
        payments=[str(one["payment_id"]) for one in bodies],
        waiting=_waiting(system),
        sent=_sent(system),
        mails=len(list((system.maildir / "new").iterdir())),
        told=told,
        ticks=_ticks(holdings),
        unaudited=unaudited(holdings),
    )


def _ticks(holdings: Holdings) -> list[str]:
    return [one.time.isoformat() for one in holdings.events if one.name == TICK]


def _charges(system: System) -> list[str]:
    return _column(system.database("payment"), "SELECT payment_id FROM charges")


def _sent(system: System) -> list[str]:
    return _column(system.database("notification"), "SELECT message_id FROM sent_mails")


def _waiting(system: System) -> int:
    """Count what waits in both outboxes, but for statements, of which one may come any time."""
    query = "SELECT id FROM eventbus_outbox WHERE name NOT LIKE 'statement.%'"
    return sum(len(_column(system.database(one), query)) for one in ("payment", "notification"))


def _column(database: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [str(value) for (value,) in connection.execute(query)]


def _differences(left: Sequence[str], right: Sequence[str], one: str, other: str) -> list[str]:
    missing, surplus = Counter(left) - Counter(right), Counter(right) - Counter(left)
    found = [f"{missing.total()} {one} without their {other}"] if missing else []
    return [*found, f"{surplus.total()} {other} without their {one}"] if surplus else found


def _compared(of: Mapping[str, Sequence[str]]) -> str:
    """Return how many there are of each, and whether they are the same."""
    sign = " = " if len({tuple(sorted(one)) for one in of.values()}) == 1 else " and not "
    return sign.join(f"{len(one)} {name}" for name, one in of.items())


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
