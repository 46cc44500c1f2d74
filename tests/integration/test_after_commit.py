"""Listeners of this process that wait for the commit of the transaction they were told in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from eventbus import Event, EventService
from eventbus.drivers.sync import SyncDriver
from eventbus.errors import DeclarationError
from eventbus.telemetry.signals import EmitFailed, Emitted, Happened
from tests.integration.ledger import database, session_of


class Noted(Event, name="note.taken"):
    text: str = ""


class Sealed(Event, name="note.sealed", after_commit=True):
    text: str = ""


class Desk:
    """A service whose listeners run within the emit, and what they heard."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.told: list[Happened] = []
        self.events = EventService("desk", driver=SyncDriver())
        self.events.observe(self.told.append)
        self.events.subscribe(Noted, name="now")(self._now)
        self.events.subscribe(Noted, name="later", after_commit=True)(self._later)
        self.events.subscribe(Sealed, name="sealed")(self._sealed)

    async def _now(self, event: Noted) -> None:
        self.heard.append(f"now {event.text}")

    async def _later(self, event: Noted) -> None:
        self.heard.append(f"later {event.text}")

    async def _sealed(self, event: Sealed) -> None:
        if event.text == "bad":
            raise ValueError(event.text)
        self.heard.append(f"sealed {event.text}")
        await self.events.emit(Noted(text=f"of {event.text}"))


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    async with database(f"sqlite+aiosqlite:///{tmp_path}/bus.db") as engine:
        yield engine


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    async with desk.events:
        yield desk


async def test_a_listener_that_waits_runs_after_the_commit_and_others_at_once(
    engine: AsyncEngine, desk: Desk
) -> None:
    async with session_of(engine) as session, desk.events.transaction(session):
        await session.execute(text("SELECT 1"))
        await desk.events.emit(Noted(text="a"))
        before = list(desk.heard)
        await session.commit()

    assert (before, desk.heard) == (["now a"], ["now a", "later a"])


async def test_a_rollback_drops_what_waits(engine: AsyncEngine, desk: Desk) -> None:
    async with session_of(engine) as session, desk.events.transaction(session):
        await session.execute(text("SELECT 1"))
        receipt = await desk.events.emit(Sealed(text="a"))
        await session.rollback()
        await desk.events.emit(Sealed(text="b"))
        await session.commit()

    assert receipt.pending
    assert desk.heard == ["sealed b", "now of b", "later of b"]


async def test_a_savepoint_decides_with_its_root(engine: AsyncEngine, desk: Desk) -> None:
    async with session_of(engine) as session, desk.events.transaction(session):
        await desk.events.emit(Sealed(text="a"))
        async with session.begin_nested():
            await desk.events.emit(Sealed(text="b"))
        dropped = await session.begin_nested()
        await desk.events.emit(Sealed(text="c"))
        await dropped.rollback()
        early = list(desk.heard)
        await session.commit()

    assert early == []
    assert [one for one in desk.heard if one.startswith("sealed")] == ["sealed a", "sealed b"]


async def test_a_call_says_it_too_and_wins_over_the_class(engine: AsyncEngine, desk: Desk) -> None:
    async with session_of(engine) as session, desk.events.transaction(session):
        await desk.events.emit(Noted(text="a"), after_commit=True)
        await desk.events.emit(Sealed(text="b"), after_commit=False)
        early = list(desk.heard)
        await session.commit()

    assert early == ["sealed b", "now of b"]
    assert desk.heard == [*early, "now a", "later a", "later of b"]


async def test_outside_of_a_transaction_nothing_waits(desk: Desk) -> None:
    receipt = await desk.events.emit(Sealed(text="a"))

    assert not receipt.pending
    assert desk.heard == ["sealed a", "now of a", "later of a"]


async def test_what_is_raised_after_the_commit_is_told_and_stops_nothing(
    engine: AsyncEngine, desk: Desk
) -> None:
    async with session_of(engine) as session, desk.events.transaction(session):
        await desk.events.emit(Sealed(text="bad"))
        await desk.events.emit(Sealed(text="good"))
        await session.commit()

    assert desk.heard[0] == "sealed good"
    assert [str(one.error) for one in desk.told if isinstance(one, EmitFailed)] == ["bad"]
    assert len([one for one in desk.told if isinstance(one, Emitted)]) == 2


async def test_a_session_that_is_not_async_has_its_listeners_run_soon_after(
    engine: AsyncEngine, desk: Desk
) -> None:
    heard = asyncio.Event()

    async def note(event: Sealed) -> None:
        heard.set()

    await desk.events.subscribe(Sealed, note)
    plain = create_engine(engine.url.set(drivername="sqlite"))
    with Session(plain) as session:
        async with desk.events.transaction(session):
            await desk.events.emit(Sealed(text="a"))
            early = list(desk.heard)
            session.commit()
    plain.dispose()

    async with asyncio.timeout(30):
        await heard.wait()
    assert (early, desk.heard[0]) == ([], "sealed a")


async def test_a_connection_cannot_tell_when_it_has_committed(
    engine: AsyncEngine, desk: Desk
) -> None:
    async with engine.begin() as connection, desk.events.transaction(connection):
        with pytest.raises(DeclarationError, match="after_commit needs a session"):
            await desk.events.emit(Sealed(text="a"))
