"""The tables of the stores, on real databases."""

import asyncio
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import delete, event, insert, inspect, select
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine

from eventbus.errors import SettingsError, StoreError
from eventbus.stores.sql import tables
from eventbus.stores.sql.engine import create_tables, dispose, engine_of, opened
from tests.cli.shell import cli, until
from tests.postgres import Postgres

ROOT = Path(__file__).parents[2]
NAMES = ("eventbus_outbox", "eventbus_outbox_lanes", "eventbus_inbox", "eventbus_events")


async def columns(engine: AsyncEngine, table: str) -> list[str]:
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda one: inspect(one).get_columns(table))
    return [one["name"] for one in found]


async def test_missing_tables_are_created_and_others_stay(database_url: str) -> None:
    async with opened(database_url) as engine:
        first = await create_tables(engine)
        async with engine.begin() as connection:
            await connection.execute(
                insert(tables.inbox), handled("a", datetime(2026, 1, 1, tzinfo=UTC))
            )

        second = await create_tables(engine)

        async with engine.connect() as connection:
            kept = (await connection.scalars(select(tables.inbox.c.id))).all()
            lanes = (await connection.scalars(select(tables.lanes.c.lane))).all()
    assert (first, second) == (NAMES, ())
    assert kept == ["a"]
    assert sorted(lanes) == list(range(tables.LANES))


async def test_all_connections_are_closed_also_where_that_is_cancelled(database_url: str) -> None:
    engine = engine_of(database_url)
    closed: list[object] = []
    begun = asyncio.Event()

    @event.listens_for(engine.sync_engine.pool, "close")
    def closes(connection: object, _: object) -> None:
        closed.append(connection)
        begun.set()

    async with engine.connect(), engine.connect(), engine.connect():
        pass

    async with asyncio.TaskGroup() as group:
        closing = group.create_task(dispose(engine))
        await begun.wait()
        closing.cancel()
        await asyncio.wait((closing,))

    assert closing.cancelled()
    assert len(closed) == 3


async def test_processes_may_create_the_tables_at_once(database_url: str) -> None:
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(opened(database_url)) for _ in range(8)]

        made = await asyncio.gather(*(create_tables(engine) for engine in engines))

    assert sorted(made) == [()] * 7 + [NAMES]


async def test_processes_may_write_the_lanes_at_once(database_url: str) -> None:
    async with opened(database_url) as engine:
        await create_tables(engine)
        async with engine.begin() as connection:
            await connection.execute(tables.lanes.delete())

        await asyncio.gather(*(create_tables(engine) for _ in range(4)))

        async with engine.connect() as connection:
            lanes = (await connection.scalars(select(tables.lanes.c.lane))).all()
    assert sorted(lanes) == list(range(tables.LANES))


async def test_a_time_comes_back_in_utc(database_url: str) -> None:
    time = datetime(2026, 3, 29, 3, 30, 0, 123456, timezone(timedelta(hours=2)))

    async with opened(database_url) as engine:
        await create_tables(engine)
        async with engine.begin() as connection:
            await connection.execute(insert(tables.inbox), handled("a", time))
            read = await connection.scalar(select(tables.inbox.c.handled_at))

            with pytest.raises(StatementError, match="no time zone"):
                await connection.execute(
                    insert(tables.inbox), handled("b", time.replace(tzinfo=None))
                )

    assert (read, read and read.tzinfo) == (time, UTC)


def handled(id: str, time: datetime) -> dict[str, object]:
    return {"durable": "mail__welcome", "id": id, "handled_at": time}


async def test_the_other_driver_of_postgresql_works_too(postgres_dsn: str) -> None:
    url = postgres_dsn.replace("postgresql://", "postgresql+asyncpg://", 1)

    async with opened(url) as engine:
        assert await create_tables(engine) == NAMES
        assert "lane" in await columns(engine, "eventbus_outbox")


async def test_a_database_that_is_away_is_a_store_error() -> None:
    async with opened("postgresql+psycopg://nobody@127.0.0.1:1/none") as engine:
        with pytest.raises(StoreError, match="creating the tables failed"):
            await create_tables(engine)


@pytest.mark.parametrize("url", ["mysql://localhost/bus", "nonsense", "sqlite+pysqlite:///a.db"])
def test_a_database_that_the_stores_do_not_know_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"URL|don't work"):
        engine_of(url)


def test_the_command_creates_the_tables(tmp_path: Path) -> None:
    first = cli("store", "init", cwd=tmp_path)
    second = cli("store", "init", cwd=tmp_path)

    assert (first.returncode, first.stdout) == (0, f"created {', '.join(NAMES)}\n")
    assert (second.returncode, second.stdout) == (0, "all tables are there\n")
    assert (tmp_path / "eventbus.db").is_file()


def test_the_tests_server_dies_with_the_test(postgres: Postgres) -> None:
    script = (
        "import os, sys, time\n"
        "from tests.postgres import Postgres\n"
        "with Postgres() as server:\n"
        "    print(server.process, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        number = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)

    until(lambda: not is_alive(number), "PostgreSQL outlives its owner")


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


async def test_a_cancelled_statement_of_sqlite_holds_up_no_other_writer(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/bus.db"

    async def write(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            query = insert(tables.lanes).values(lane=999).returning(tables.lanes.c.lane)
            running.set()
            await connection.execute(query)

    async with opened(url) as engine, opened(url) as other:
        await create_tables(engine)
        for turns in range(12):  # one of them is in the midst of the statement
            running = asyncio.Event()
            writing = asyncio.ensure_future(write(engine))  # noqa: TID251 - cancelled below
            await running.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait({writing})

            async with asyncio.timeout(30), other.begin() as connection:
                await connection.execute(delete(tables.lanes).where(tables.lanes.c.lane == 999))
