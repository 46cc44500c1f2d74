"""`eventbus relay` and `eventbus outbox`: what waits is taken to the stream, or worked by hand."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from eventbus.embedded import NatsServer
from tests.cli.shell import cli, started, until
from tests.integration.ledger import Paid, database, service, stored

pytestmark = [pytest.mark.nats]


@pytest.fixture
def settings(nats_server: NatsServer) -> dict[str, str]:
    return {"EVENTBUS_NATS_URL": nats_server.url}


async def emit(server: NatsServer, folder: Path, *numbers: int) -> None:
    """Have events wait in the outbox of a folder."""
    url = f"sqlite+aiosqlite:///{folder}/eventbus.db"
    bank = service(server.url, url, relay=False)
    async with database(url) as engine, bank, engine.begin() as connection:
        block = bank.transaction(connection)
        async with block:
            for number in numbers:
                await bank.emit(Paid(account="a", number=number))


def spoil(folder: Path, sequence: int) -> None:
    """Have a row be one that can't go."""
    with sqlite3.connect(folder / "eventbus.db") as connection:
        connection.execute(
            'UPDATE eventbus_outbox SET headers = \'{"a b": ""}\' WHERE sequence = ?', (sequence,)
        )
    connection.close()


def shown(folder: Path, settings: dict[str, str]) -> dict[str, Any]:
    done = cli("outbox", "status", "--json", cwd=folder, **settings)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_what_waits_is_relayed_once(
    nats_server: NatsServer, tmp_path: Path, settings: dict[str, str]
) -> None:
    await emit(nats_server, tmp_path, 1, 2)

    before = cli("outbox", "status", cwd=tmp_path, **settings)
    done = cli("relay", "--once", cwd=tmp_path, **settings)
    again = cli("relay", "--once", cwd=tmp_path, **settings)

    assert before.stdout.startswith("2 events waiting, the oldest for ")
    assert (done.stdout, again.stdout) == ("2 events relayed\n", "0 events relayed\n")
    assert [one.number for one in await stored(nats_server.url)] == [1, 2]
    assert shown(tmp_path, settings)["pending"] == 0


async def test_a_relay_runs_until_it_is_told_to_stop(
    nats_server: NatsServer, tmp_path: Path, settings: dict[str, str]
) -> None:
    await emit(nats_server, tmp_path, 1)

    with started("relay", cwd=tmp_path, settings=settings) as running:
        running.line("service.started")
        until(lambda: not shown(tmp_path, settings)["pending"], "nothing goes")
        await emit(nats_server, tmp_path, 2)
        until(lambda: not shown(tmp_path, settings)["pending"], "the second one doesn't go")
        running.popen.terminate()
        code = running.end()

    assert code == 0
    assert [one.number for one in await stored(nats_server.url)] == [1, 2]


async def test_what_was_set_aside_is_shown_tried_again_and_removed(
    nats_server: NatsServer, tmp_path: Path, settings: dict[str, str]
) -> None:
    await emit(nats_server, tmp_path, 1, 2, 3)
    spoil(tmp_path, 1)
    spoil(tmp_path, 2)
    cli("relay", "--once", cwd=tmp_path, **settings)

    aside = shown(tmp_path, settings)
    table = cli("outbox", "status", cwd=tmp_path, **settings).stdout
    nothing_said = cli("outbox", "retry", cwd=tmp_path, **settings)
    retried = cli("outbox", "retry", "2", cwd=tmp_path, **settings)
    waiting = shown(tmp_path, settings)
    kept = cli("outbox", "prune", "--older-than", "30d", cwd=tmp_path, **settings)
    removed = cli("outbox", "prune", "--older-than", "0", "--json", cwd=tmp_path, **settings)

    assert (aside["pending"], aside["quarantined"]) == (0, 2)
    assert [one["number"] for one in aside["set_aside"]] == [1, 2]
    assert aside["set_aside"][0]["reason"].endswith("[codec.header]")
    assert "why it can't go" in table
    assert (nothing_said.returncode, retried.stdout) == (2, "1 event will be tried again\n")
    assert (waiting["pending"], waiting["quarantined"]) == (1, 1)
    assert kept.stdout == "0 events removed\n"
    assert json.loads(removed.stdout) == {"removed": 1}


def test_a_database_without_the_tables_says_what_to_do(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    done = cli("outbox", "status", cwd=tmp_path, **settings)

    assert done.returncode == 1
    assert "eventbus store init" in done.stderr
