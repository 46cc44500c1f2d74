"""`eventbus dlq`: dead letters listed, shown, redriven and purged from the command line."""

import asyncio
import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import nats
import pytest

from eventbus import Event, EventService, Retry
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled
from tests.cli.shell import COMMAND, cli, environment

ONCE = Retry(attempts=1)


class OrderPlaced(Event, name="order.placed", key="order_id"):
    order_id: str
    work: float = 0


class Mail:
    """The service whose listener ``send`` fails until it is repaired, and what it handled."""

    def __init__(self, url: str) -> None:
        self.settings = Settings(nats_url=url)
        self.handled: list[Event] = []
        self.options: dict[str, Any] = {}

    def fails(self, *orders: str) -> None:
        """Let it fail on orders."""
        asyncio.run(self._work(len(orders), orders, Outcome.DEAD))

    def parks(self, *orders: str) -> None:
        """Let it fail on orders, whose keys it sets aside."""
        self.options = {"ordered": True, "on_failure": "park_key"}
        self.fails(*orders)

    def works(self, count: int) -> list[Event]:
        """Let it handle so many events, and return them."""
        asyncio.run(self._work(count, (), Outcome.OK))
        return self.handled

    async def _work(self, count: int, orders: tuple[str, ...], awaited: Outcome) -> None:
        settled: asyncio.Queue[Settled] = asyncio.Queue()

        def observe(happened: Happened) -> None:
            if isinstance(happened, Settled):
                settled.put_nowait(happened)

        async def send(event: OrderPlaced) -> None:
            if awaited is Outcome.DEAD:
                raise ValueError("no [customer]\x1b[31m of that name")
            self.handled.append(event)

        service = EventService("mail", settings=self.settings, observers=[observe])
        await service.subscribe(OrderPlaced, send, retry=ONCE, **self.options)
        async with service, asyncio.timeout(10):
            for order in orders:
                await service.emit(OrderPlaced(order_id=order), headers={"x-tenant": "größer"})
            for _ in range(count):
                assert (await settled.get()).outcome is awaited

    def forget(self) -> None:
        """Delete its durable."""
        self._ask("delete_consumer", "EVENTS", "mail__send")

    def _ask(self, what: str, *arguments: Any) -> None:
        async def ask() -> None:
            client = await nats.connect(self.settings.nats_url)
            await getattr(client.jetstream(), what)(*arguments)
            await client.close()

        asyncio.run(ask())


class Desk:
    """Runs ``eventbus dlq`` in a project."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.says = ""
        """What it is told on its standard input."""
        self.code = 0
        self.errors = ""

    def __call__(self, *arguments: str, **settings: str) -> str:
        given = {"EVENTBUS_NATS_URL": self.url, "COLUMNS": "120", **settings}
        done = subprocess.run(
            [*COMMAND, "dlq", *arguments],
            cwd=self.folder,
            env=environment(**given),
            input=self.says,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        self.code, self.errors = done.returncode, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        out = self(*arguments, "--json")
        assert self.errors == ""
        return json.loads(out)

    def numbers(self, *arguments: str) -> list[int]:
        return [one["number"] for one in self.json("list", *arguments)]


@pytest.fixture
def mail(nats_server: NatsServer) -> Mail:
    return Mail(nats_server.url)


@pytest.fixture
def desk(shop: Path, nats_server: NatsServer) -> Desk:
    return Desk(shop, nats_server.url)


def test_letters_are_listed_the_newest_first(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1", "o-2")

    lines = desk("list").splitlines()

    second, first = (line for line in lines if "order.placed" in line)
    assert second.split()[0] == "2"
    assert first.split()[0] == "1"
    assert "mail.send" in first
    assert "exception" in first
    assert "ValueError: no [customer]\\x1b[31m of that name" in first
    assert "\x1b" not in first


def test_letters_as_json_hold_what_a_program_needs(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1")

    [letter] = desk.json("list")

    assert letter.keys() == {
        *("number", "stored_at", "service", "listener", "event", "id", "key", "correlation_id"),
        *("reason", "error_type", "error_message", "failed_at", "attempts", "fingerprint"),
        *("redrive", "redrives", "tags"),
    }
    assert (letter["number"], letter["service"], letter["listener"]) == (1, "mail", "send")
    assert (letter["event"], letter["key"], letter["reason"]) == (
        "order.placed",
        "o-1",
        "exception",
    )


def test_a_filter_says_which_letters(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1", "o-2", "o-3")

    assert desk.numbers("--listener", "mail.send", "--event", "order.*") == [3, 2, 1]
    assert desk.numbers("--key", "o-2", "--reason", "exception", "--error", "ValueError") == [2]
    assert desk.numbers("--oldest", "--limit", "2", "--since", "1h") == [1, 2]
    assert desk.numbers("--until", "2020-01-01") == desk.numbers("--service", "audit") == []
    assert desk("list", "--listener", "audit.send") == "no dead letter fits\n"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--since", "soon"), "neither a time like"),
        (("--event", "order"), "isn't an event name"),
        (("--reason", "boredom"), "boredom"),
        (("--listener", "mail.send", "--service", "audit"), "isn't of service audit"),
        (("--limit", "0"), "greater than or equal to 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_filter_is_a_wrong_use(shop: Path, wrong: tuple[str, ...], said: str) -> None:
    done = cli("dlq", "list", *wrong, cwd=shop, EVENTBUS_NATS_URL="nats://127.0.0.1:1")

    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())


def test_kinds_of_failures_are_counted(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1", "o-2")

    out = desk("list", "--groups")
    [group] = desk.json("list", "--groups")

    assert "2 letters of mail.send on order.placed" in out
    assert "the last one is letter 2" in out
    assert (group["letters"], group["redriven"], group["sample"]["number"]) == (2, 0, 2)
    assert desk.numbers("--fingerprint", group["fingerprint"]) == [2, 1]


def test_a_letter_is_shown_with_all_that_is_known_of_it(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1")
    desk("redrive", "1")
    mail.fails("o-2")

    out = desk("show", "1")
    letter = desk.json("show", "1")

    assert "after 1 attempts" in out
    assert "\x1b" not in out
    assert "  x-tenant: größer\n" in out
    assert '  "order_id": "o-1"' in out
    assert "raise ValueError" in out
    assert "failed again  as letter" in out
    assert letter["payload"] == {"order_id": "o-1", "work": 0.0}
    assert letter["headers"]["x-tenant"] == "größer"
    assert letter["error_stack"].startswith("Traceback")
    assert (letter["original_stream"], letter["original_seq"]) == ("EVENTS", 1)
    assert letter["failed_again"] in ([2], [3])
    assert [one["number"] for one in letter["redrives"]] == [1]
    assert not [name for name in letter["headers"] if name.startswith(("nats-", "eventbus-dead"))]


def test_a_payload_that_is_no_json_is_shown_as_it_is(desk: Desk, mail: Mail) -> None:
    mail.fails()
    headers = {"ce-id": "e-1", "ce-type": "order.placed"}
    mail._ask("publish", "events.order.placed", b"\xff\x00", 5, None, headers)
    mail.fails("o-1")

    assert "not JSON, 2 bytes: b'\\xff\\x00'" in desk("show", "1")
    letter = desk.json("show", "1")
    assert letter["payload"] is None
    assert base64.b64decode(letter["payload_base64"]) == b"\xff\x00"


def test_a_letter_that_is_not_there_is_one_clear_error(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1")

    for command in (("show", "7"), ("redrive", "1", "7"), ("purge", "7", "--yes")):
        out = desk(*command)

        assert (desk.code, out) == (1, "")
        assert "error: there is no dead letter 7 in EVENTS_DLQ" in desk.errors
    assert desk.numbers("--redriven") == []


def test_a_redrive_goes_to_the_listener_and_is_recorded(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1", "o-2")

    out = desk("redrive", "--listener", "mail.send")

    assert desk.code == 0
    assert out.splitlines()[-1] == "2 redriven"
    assert "1  order.placed to mail.send: redriven (nobody works mail__send now" in out
    assert mail.works(2) == [OrderPlaced(order_id="o-1"), OrderPlaced(order_id="o-2")]
    assert desk.numbers("--redriven") == [2, 1]


def test_a_redrive_by_key_frees_a_parked_key(desk: Desk, mail: Mail) -> None:
    mail.parks("o-1", "o-2", "o-1")

    part = desk("redrive", "--key", "o-1", "--limit", "1")
    rest = desk("redrive", "--key", "o-1")
    mail.works(2)

    assert "key 'o-1' of mail.send stays parked: 1 more of its letters are left" in part
    assert "key 'o-1' of mail.send is free once they are handled" in rest
    assert desk.numbers("--redriven") == [3, 1]


def test_what_was_redriven_is_left_out_of_the_next_run_unless_it_is_meant(
    desk: Desk, mail: Mail
) -> None:
    mail.fails("o-1")
    desk("redrive", "--all")

    assert desk("redrive", "--all") == "no dead letter fits\n"
    assert desk.code == 0
    assert desk.json("redrive", "--all", "--again")[0]["redrive"] == 2
    assert desk.json("redrive", "1")[0]["redrive"] == 3


def test_a_dry_run_tells_and_does_nothing(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1", "o-2")

    assert desk("redrive", "--all", "--dry-run", "--limit", "1").endswith("\n1 planned\n")
    assert desk.numbers("--redriven") == []


def test_which_letters_are_meant_must_be_said_once(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1")

    for command in ("redrive", "purge"):
        for said in ((), ("1", "--all"), ("1", "--key", "o-1"), ("--all", "--key", "o-1")):
            out = desk(command, *said)

            assert (desk.code, out) == (2, "")
            assert "which letters?" in desk.errors or "say it in one way" in desk.errors
    assert desk.numbers("--not-redriven") == [1]


def test_a_wrong_rate_is_a_wrong_use(desk: Desk, mail: Mail) -> None:
    desk("redrive", "--all", "--rate", "fast")

    assert desk.code == 2
    assert "isn't a rate; write '20/s'" in desk.errors


def test_another_payload_is_checked_and_sent(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1")

    wrong = desk("redrive", "1", "--payload", '{"order_id": 7, "wrok": 1}')
    assert (desk.code, wrong) == (1, "")
    assert "order_id: Input should be a valid string" in desk.errors
    assert "wrok: Extra inputs are not permitted" in desk.errors
    assert "its fields are order_id: str, work?: float" in desk.errors
    assert "nothing was sent" in desk.errors

    desk.says = '{"order_id": "o-9"}'
    [done] = desk.json("redrive", "1", "--payload", "-")
    assert (done["edited"], done["redrive"]) == (True, 1)
    assert mail.works(1) == [OrderPlaced(order_id="o-9")]


@pytest.mark.parametrize(
    ("payload", "said"),
    [("{", "isn't JSON: Expecting property name"), ("[1]", "must be a JSON object, not [1]")],
)
def test_a_payload_that_is_no_object_is_one_clear_error(
    desk: Desk, mail: Mail, payload: str, said: str
) -> None:
    mail.fails("o-1")

    desk("redrive", "1", "--payload", payload)

    assert desk.code == 1
    assert said in desk.errors
    assert "nothing was sent" in desk.errors


def test_a_payload_of_many_letters_is_a_wrong_use(desk: Desk, mail: Mail) -> None:
    for which in (("1", "2"), ("--all",)):
        desk("redrive", *which, "--payload", "{}")

        assert desk.code == 2
        assert "for one letter, by its number" in desk.errors


def test_a_payload_can_be_written_in_an_editor(desk: Desk, mail: Mail, tmp_path: Path) -> None:
    mail.fails("o-1")
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/o-1/o-2/" "$1"\n')
    editor.chmod(0o755)

    desk("redrive", "1", "--edit", EDITOR=str(editor))

    assert desk.code == 0, desk.errors
    assert mail.works(1) == [OrderPlaced(order_id="o-2")]


def test_an_editor_that_changes_nothing_or_fails_sends_nothing(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1")

    for editor, said in (("true", "is as it was"), ("false", "failed"), ("/nowhere", "failed")):
        desk("redrive", "1", "--edit", EDITOR=editor, VISUAL="")

        assert desk.code == 1
        assert said in desk.errors
    assert desk.numbers("--redriven") == []


def test_where_the_durable_is_gone_it_says_that_nobody_would_get_it(
    desk: Desk, mail: Mail
) -> None:
    mail.fails("o-1")
    mail.forget()

    out = desk("redrive", "1")

    assert desk.code == 1
    assert "refused (nobody would get it: durable mail__send isn't there any more)" in out
    assert desk.numbers("--redriven") == []


def test_a_purge_asks_before_it_deletes(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1", "o-2")

    for answer in ("", "n\n", "\n"):
        desk.says = answer
        assert desk("purge", "--key", "o-1").strip() == ""
        assert desk.code == 1
        assert "Delete 1 dead letter for good?" in desk.errors
    assert desk.numbers() == [2, 1]

    desk.says = "y\n"
    assert desk("purge", "--key", "o-1").strip() == "1 deleted"
    assert desk.numbers() == [2]
    desk.says = ""
    assert desk.json("purge", "--all", "-y") == {"removed": 1}
    assert desk("list") == "no dead letters\n"
    assert desk("purge", "--all") == "0 deleted\n"


def test_stats_count_and_tell_the_room(desk: Desk, mail: Mail) -> None:
    mail.fails("o-1", "o-2")

    out = desk("stats")
    found = desk.json("stats")

    assert "EVENTS_DLQ: 2 dead letters, the oldest is" in out
    assert "of 512 MiB (0%)" in out
    assert "mail.send" in out
    assert (found["letters"], found["counts"][0]["reason"]) == (2, "exception")
    assert found["max_bytes"] == 512 * 1024 * 1024


def test_without_the_stream_each_command_says_what_is_missing(desk: Desk) -> None:
    for command in (
        ("list",),
        ("show", "1"),
        ("redrive", "--all"),
        ("purge", "--all"),
        ("stats",),
    ):
        desk(*command)

        assert desk.code == 2
        assert "error: stream EVENTS_DLQ: isn't there, so no dead letter is kept" in desk.errors


def test_without_a_server_it_gives_up_and_says_how_to_get_one(shop: Path) -> None:
    settings = {"EVENTBUS_NATS_URL": "nats://127.0.0.1:1", "EVENTBUS_CONNECT_TIMEOUT": "0.3"}

    done = cli("dlq", "list", cwd=shop, **settings)

    assert done.returncode == 1
    assert "no server within 0.3 s" in done.stderr
