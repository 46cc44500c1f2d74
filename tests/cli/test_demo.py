"""`eventbus demo`, whole: it ends by itself, tells the truth, and leaves nothing behind."""

import json
import os
import re
import signal
import sqlite3
import urllib.request
from pathlib import Path

import pytest

from eventbus.cli.demo.system import PROCESSES
from tests.cli.shell import Running, cli, started, until
from tests.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("_nats_binary"),
    pytest.mark.xdist_group("demo"),
]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended; whoever adopted it hasn't looked yet.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ended since
        return False


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    listed = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(one) for line in listed for one in line]


def counts(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text)
    assert found is not None, text
    return [int(one) for one in found.groups()]


def url(running: Running, service: str, kind: str = "/metrics") -> str:
    line = running.line(lambda one: one.startswith(f"  {service} ") and kind in one)
    return line.split()[1]


@pytest.mark.timeout(300)
def test_the_demo_accounts_for_every_event_and_exits_with_0(tmp_path: Path) -> None:
    deliveries = tmp_path / "deliveries.ndjson"
    payload = {"zen": "Design for failure.", "hook_id": 7}
    deliveries.write_text(json.dumps({"event": "ping", "payload": payload}) + "\n")

    done = cli("demo", "--deliveries", str(deliveries), cwd=ROOT, TMPDIR=str(tmp_path))

    assert done.returncode == 0, done.stdout + done.stderr
    cells = [line.split() for line in done.stdout.splitlines()]
    rows = {row[0]: row for row in cells if len(row) > 5 and row[1].isdigit()}
    assert rows["webhook.received"][1:4] == ["1", "2", "2"]
    assert rows["webhook.ignored"][1:4] == ["1", "1", "1"]
    assert rows["user.created"][5] == "1", "the poison event is dead-lettered"
    assert int(rows["payment.failed"][4]) > 0, "failed payments are retried"
    # More where a lease has run out: then the event came twice.
    assert int(rows["all"][2]) <= int(rows["all"][3]) + int(rows["all"][5])
    assert "correlation " in done.stdout
    assert "Nothing is lost" in done.stdout
    assert "just committed" in done.stdout
    charges, payments = counts(r"(\d+) charges = (\d+) payment", done.stdout)
    assert charges == payments > 100
    sent, told, mails = counts(r"(\d+) rows of mails = (\d+) email.sent = (\d+)", done.stdout)
    assert sent == told == mails > 250
    assert counts(r"(\d+) statement.due, .*, each once", done.stdout)[0] > 2
    assert not list(tmp_path.glob("eventbus-*")), "temporary folders are gone"


@pytest.mark.timeout(300)
def test_keep_leaves_the_system_running_until_ctrl_c(tmp_path: Path) -> None:
    settings = {"TMPDIR": str(tmp_path), "EVENTBUS_NATS_URL": "nats://127.0.0.1:1"}

    with started("demo", "--keep", cwd=ROOT, settings=settings) as running:
        running.line("everything stays up")
        with urllib.request.urlopen(url(running, "audit")) as answer:
            counted = answer.read().decode()
        database = running.line("audit trail").split()[2]
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as trail:
            rows = trail.execute("SELECT count(*), count(DISTINCT id) FROM events").fetchone()
        trail.close()
        running.popen.send_signal(signal.SIGINT)
        code = running.end()

    assert code == 0
    assert (
        'eventbus_processed_total{event="user.created",listener="record",outcome="ok"}' in counted
    )
    assert rows[0] == rows[1] > 400
    assert not list(tmp_path.glob("eventbus-*"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_demo(tmp_path: Path, number: signal.Signals) -> None:
    with started("demo", cwd=ROOT, settings={"TMPDIR": str(tmp_path)}) as running:
        running.line("users sign up")
        family = children(running.popen.pid)
        running.popen.send_signal(number)
        code = running.end()

    assert len(family) == len(PROCESSES) + 1  # and the server
    assert code in (128 + number, -number)
    until(lambda: not any(alive(one) for one in family), "a process is left")
    if number is signal.SIGTERM:
        assert not list(tmp_path.glob("eventbus-*"))


@pytest.mark.timeout(300)
def test_a_service_that_dies_ends_the_demo_with_1_and_its_log(tmp_path: Path) -> None:
    with started("demo", cwd=ROOT, settings={"TMPDIR": str(tmp_path)}) as running:
        running.line("users sign up")
        victim = next(
            one
            for one in children(running.popen.pid)
            if b"services.notification:events" in Path(f"/proc/{one}/cmdline").read_bytes()
        )
        os.kill(victim, signal.SIGKILL)
        code = running.end()

    assert code == 1
    assert running.has("service 'notification' ended with code -9")
    assert running.has("[demo.service]")
    assert not running.has("Traceback")


def test_away_from_the_repository_it_says_what_it_needs(bare: Path) -> None:
    done = cli("demo", cwd=bare)

    assert done.returncode == 2
    assert "in a clone of the repository" in done.stderr


def test_a_file_that_holds_no_deliveries_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "deliveries.ndjson"
    file.write_text('{"event": "ping", "payload": {}}\n{"event": "ping"}\n')

    done = cli("demo", "--deliveries", str(file), cwd=ROOT)

    assert done.returncode == 2
    assert f"{file}:2 isn't a delivery" in done.stderr
