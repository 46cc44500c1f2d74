"""`eventbus dev`: a server of its own, a process each, restarts on change."""

import signal
from pathlib import Path

import pytest

from eventbus.cli.workshop import affected
from tests.cli.shell import STORE, cli, started, until

TARGETS = ("services.shop:events", "services.store:events")


def starts(lines: list[str], name: str) -> int:
    return sum(line.startswith(name) and "service.started" in line for line in lines)


@pytest.mark.slow
@pytest.mark.usefixtures("_nats_binary")
def test_a_change_restarts_the_service_it_concerns_and_no_other(shop: Path) -> None:
    with started("dev", *TARGETS, "--port", "-1", cwd=shop) as running:
        running.line(lambda line: line.startswith("shop  | ") and "service.started" in line)
        running.line(lambda line: line.startswith("store | ") and "service.started" in line)
        metrics = running.line("store metrics http")

        (shop / "services/store.py").write_text(STORE + "\n")
        until(lambda: starts(running.lines, "store") == 2, "store wasn't restarted")

        assert starts(running.lines, "shop") == 1
        assert running.lines.count(metrics) == 2, "a restart keeps the ports"

        (shop / "schemas/order.py").write_text((shop / "schemas/order.py").read_text() + "\n")
        until(lambda: starts(running.lines, "store") == 3, "store wasn't restarted")
        until(lambda: starts(running.lines, "shop") == 2, "shop wasn't restarted")

        running.popen.send_signal(signal.SIGINT)
        assert running.end() == 0

    assert running.has("shop  | stopped")
    assert running.has("store | stopped")


@pytest.mark.slow
@pytest.mark.usefixtures("_nats_binary")
def test_a_service_that_cannot_start_waits_for_the_mending_change(shop: Path) -> None:
    store = shop / "services/store.py"

    with started("dev", TARGETS[1], "--port", "-1", "--store", "data", cwd=shop) as running:
        running.line("service.started")
        store.write_text("from eventbus import EventServic\n")
        running.line("it starts again when a file changes")
        assert running.has("cannot import name 'EventServic'")

        store.write_text(STORE)
        until(lambda: starts(running.lines, "store") == 2, "store wasn't restarted")


@pytest.mark.slow
@pytest.mark.usefixtures("_nats_binary")
def test_events_are_kept_in_a_named_folder(shop: Path) -> None:
    arguments = ("dev", TARGETS[0], "--port", "-1", "--store", "data")
    stored = []

    for number in (1, 2):
        with started(*arguments, cwd=shop) as running:
            url = running.line("export EVENTBUS_NATS_URL=").partition("=")[2]
            running.line("service.started")
            payload = f'{{"order_id": "o-{number}"}}'
            stored.append(cli("emit", "order.lost", payload, cwd=shop, NATS_URL=url).stdout)
            running.popen.send_signal(signal.SIGTERM)
            assert running.end() == 0

    assert "EVENTS 1" in stored[0]
    assert "EVENTS 2" in stored[1]


@pytest.mark.slow
@pytest.mark.usefixtures("_nats_binary")
def test_settings_of_another_server_do_not_reach_the_services(shop: Path) -> None:
    # Neither of the environment nor of the file; the grace period is one with a unit.
    (shop / ".env").write_text("EVENTBUS_TLS_CA=ca.pem\nNATS_URL=tls://prod.example.org\n")
    theirs = {"EVENTBUS_NATS_TOKEN": "theirs", "EVENTBUS_GRACE": "3s"}

    with started("dev", TARGETS[0], "--port", "-1", cwd=shop, settings=theirs) as running:
        running.line("service.started")
        running.popen.send_signal(signal.SIGINT)

        assert running.end() == 0
    assert running.has("shop | stopped")


def test_a_mistyped_target_ends_it_before_anything_starts(shop: Path) -> None:
    done = cli("dev", "services.shpo:events", cwd=shop)

    assert done.returncode == 2
    assert "did you mean 'services.shop'?" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("app/user/listeners.py", {"app.user:events"}),
        ("app/user/__init__.py", {"app.user:events"}),
        ("app/mail.py", {"app.mail:events"}),
        ("app/users/listeners.py", {"app.user:events", "app.mail:events"}),
        ("schemas/user.py", {"app.user:events", "app.mail:events"}),
    ],
)
def test_a_file_concerns_its_owners_or_everybody(changed: str, expected: set[str]) -> None:
    root = Path("/project")

    found = affected(("app.user:events", "app.mail:events"), [root / changed], root)

    assert found == expected
