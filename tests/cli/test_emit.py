"""`eventbus emit`: a checked event and its receipt, or one clear error."""

import json
from pathlib import Path

import pytest

from eventbus.embedded import NatsServer
from tests.cli.shell import cli, started

NOWHERE = "nats://127.0.0.1:1"


def test_an_event_is_stored_and_its_receipt_printed(shop: Path, nats_server: NatsServer) -> None:
    done = cli("emit", "order.placed", '{"order_id": "o-1"}', cwd=shop, NATS_URL=nats_server.url)

    assert done.returncode == 0, done.stderr
    assert "is stored: EVENTS 1" in done.stdout
    assert "nobody listens: no durable takes order.placed" in done.stdout


def test_the_receipt_as_json_names_the_durables_that_get_it(
    shop: Path, nats_server: NatsServer
) -> None:
    server = {"EVENTBUS_NATS_URL": nats_server.url}
    arguments = ("emit", "order.placed", "-", "--json", "--id", "e-1", "--header", "x-tenant=a=b")

    with started("run", "services.shop:events", cwd=shop, settings=server) as running:
        running.line("service.started")
        done = cli(*arguments[:2], '{"order_id": "o-1"}', *arguments[3:], cwd=shop, **server)
        running.line("packed o-1")
    again = cli(*arguments[:2], '{"order_id": "o-1"}', *arguments[3:], cwd=shop, **server)

    assert json.loads(done.stdout) == {
        "name": "order.placed",
        "id": "e-1",
        "stream": "EVENTS",
        "sequence": 1,
        "duplicate": False,
        "driver": "jetstream",
        "due": None,
        "durables": ["shop__pack"],
    }
    assert json.loads(again.stdout)["duplicate"] is True


def test_an_event_may_wait(shop: Path, nats_server: NatsServer) -> None:
    arguments = ("emit", "order.placed", '{"order_id": "o-1"}', "--delay")

    done = cli(*arguments, "2h", cwd=shop, NATS_URL=nats_server.url)
    wrong = cli(*arguments, "soon", cwd=shop, NATS_URL=nats_server.url)

    assert done.returncode == 0, done.stderr
    assert "is stored: EVENTS_LATER 1\nit waits until 20" in done.stdout
    assert wrong.returncode == 2
    assert "isn't a duration" in wrong.stderr


def test_a_driver_that_reaches_nobody_is_refused(shop: Path) -> None:
    done = cli("emit", "order.placed", '{"order_id": "o-1"}', cwd=shop, EVENTBUS_DRIVER="memory")

    assert done.returncode == 2
    assert "driver 'memory' lives in one process" in done.stderr


@pytest.mark.usefixtures("_nats_binary")
def test_an_event_is_emitted_also_by_who_may_not_ask_who_listens(shop: Path) -> None:
    user = """authorization { users = [ { user: "ada", password: "right" }, {
        user: "bob", password: "right"
        permissions: { publish: { deny: ["$JS.API.CONSUMER.>"] } } } ] }"""
    arguments = ("emit", "order.placed", '{"order_id": "o-1"}')
    given = {"EVENTBUS_NATS_USER": "bob", "EVENTBUS_NATS_PASSWORD": "right"}

    with NatsServer(config=user) as server:
        done = cli(*arguments, cwd=shop, EVENTBUS_NATS_URL=server.url, **given)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "who listens isn't known: the server doesn't say"


@pytest.mark.parametrize(
    ("name", "payload", "said"),
    [
        ("order.place", "{}", "did you mean 'order.placed'? [schema.unknown_event]"),
        ("order.*", "{}", "wildcards are for subscribe()"),
        ("order placed", "{}", "it holds white space"),
        ("order.placed", '{"order_id": o-1}', "isn't JSON: Expecting value at line 1, column 14"),
        ("order.placed", "", "isn't JSON"),
        ("order.placed", "[1]", "must be a JSON object, not [1]"),
        ("order.placed", "{}", "order_id: Field required"),
        ("order.placed", '{"order_id": "o", "wrk": 1}', "wrk: Extra inputs are not permitted"),
        ("order.placed", '{"order_id": 7}', "order_id: Input should be a valid string"),
    ],
)
def test_bad_input_is_one_clear_error_before_any_connection(
    shop: Path, name: str, payload: str, said: str
) -> None:
    done = cli("emit", name, payload, cwd=shop, EVENTBUS_NATS_URL=NOWHERE)

    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_payload_that_does_not_fit_shows_the_fields(shop: Path) -> None:
    done = cli("emit", "order.placed", "{}", cwd=shop)

    assert "its fields are order_id: str, work?: float" in done.stderr


def test_a_json_error_points_at_its_place(shop: Path) -> None:
    done = cli("emit", "order.placed", '{"order_id": o-1}', cwd=shop)

    _, line, mark = done.stderr.splitlines()
    assert line[mark.index("^")] == "o"


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ('{"order_id": ' + "[" * 50_000, "can't be read: maximum recursion depth"),
        ('{"order_id": ' + "9" * 5_000 + "}", "can't be read: Exceeds the limit"),
        ("[1]", "must be a JSON object, not [1]"),
        ("", "isn't JSON"),
    ],
    ids=["brackets without end", "a number without end", "no object", "nothing"],
)
def test_json_that_python_refuses_is_one_clear_error(
    shop: Path, payload: str, problem: str
) -> None:
    done = cli("emit", "order.placed", payload, cwd=shop)

    assert done.returncode == 1
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reserved_header_is_refused(shop: Path, nats_server: NatsServer) -> None:
    arguments = ("emit", "order.placed", '{"order_id": "o-1"}', "--header", "nats-ttl=1s")

    done = cli(*arguments, cwd=shop, EVENTBUS_NATS_URL=nats_server.url)

    assert done.returncode == 1
    assert "reserved for the bus" in done.stderr


def test_a_header_without_a_value_is_a_wrong_use(shop: Path) -> None:
    done = cli("emit", "order.placed", "{}", "--header", "x-tenant", cwd=shop)

    assert done.returncode == 2
    assert "NAME=VALUE" in done.stderr


def test_without_a_server_it_gives_up_and_says_how_to_get_one(shop: Path) -> None:
    settings = {"EVENTBUS_NATS_URL": NOWHERE, "EVENTBUS_CONNECT_TIMEOUT": "0.3"}

    done = cli("emit", "order.placed", '{"order_id": "o-1"}', cwd=shop, **settings)

    assert done.returncode == 1
    assert "no server within 0.3 s" in done.stderr
    assert "eventbus dev" in done.stderr


def test_a_wrong_setting_is_a_wrong_configuration(shop: Path) -> None:
    arguments = ("emit", "order.placed", '{"order_id": "o-1"}')

    done = cli(*arguments, cwd=shop, EVENTBUS_REPLICAS="many")

    assert done.returncode == 2
    assert "EVENTBUS_REPLICAS" in done.stderr
    assert "Traceback" not in done.stderr


def test_where_no_event_is_declared_it_says_where_to_run(bare: Path) -> None:
    done = cli("emit", "order.placed", "{}", cwd=bare)

    assert done.returncode == 1
    assert "run from the folder that holds schemas/" in done.stderr
