"""`eventbus events`: what is declared, and who listens."""

import json
from pathlib import Path

from tests.cli.shell import cli


def test_it_lists_events_with_fields_key_and_listeners(shop: Path) -> None:
    done = cli("events", cwd=shop)

    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert lines == [
        "order.lost    v1",
        "  order_id: str",
        "  -> nobody listens",
        "order.packed  v1",
        "  order_id: str",
        "  -> shop.ship",
        "order.placed  v1  key order_id",
        "  order_id: str, work?: float",
        "  -> shop.pack",
    ]


def test_json_holds_everything_that_is_declared(shop: Path) -> None:
    done = cli("events", "--json", "--service", "services.shop:events", cwd=shop)

    placed = json.loads(done.stdout)[2]
    assert placed == {
        "name": "order.placed",
        "version": 1,
        "key": "order_id",
        "tags": [],
        "kind": "event",
        "priority": "normal",
        "declared_in": "schemas.order.OrderPlaced",
        "description": "",
        "fields": [
            {"name": "order_id", "type": "str", "required": True, "description": ""},
            {"name": "work", "type": "float", "required": False, "description": ""},
        ],
        "listeners": [
            {
                "service": "shop",
                "listener": "pack",
                "queue": "default",
                "pattern": "order.placed",
            }
        ],
    }


def test_only_the_services_asked_for_listen(shop: Path) -> None:
    done = cli("events", "--service", "services.store:events", cwd=shop)

    assert done.stdout.count("nobody listens") == 3


def test_a_folder_without_events_says_where_they_are_looked_for(bare: Path) -> None:
    done = cli("events", cwd=bare)

    assert done.returncode == 1
    assert "schemas/" in done.stderr
    assert "EVENTBUS_SCHEMAS" in done.stderr
