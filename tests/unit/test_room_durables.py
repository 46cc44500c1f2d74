"""A list of durables that isn't complete: nothing may be purged by it."""

import json

import pytest

from eventbus.drivers.jetstream.admin import Admin
from eventbus.drivers.jetstream.api import Api
from eventbus.drivers.jetstream.connection import Connection
from eventbus.drivers.jetstream.publisher import Publisher
from eventbus.drivers.jetstream.room import JetStreamRoom
from eventbus.errors import DriverError
from eventbus.settings import Settings


def room(names: list[str], listed: list[dict[str, object]]) -> JetStreamRoom:
    """Return the room of a server that names durables, and tells of some of them."""

    async def request(subject: str, payload: bytes, within: float) -> bytes:
        rows: list[object] = [*names] if ".NAMES." in subject else [*listed]
        offset = json.loads(payload)["offset"]
        page = rows[offset : offset + 2]
        return json.dumps({"total": len(rows), "consumers": page}).encode()

    settings = Settings()
    connection = Connection(settings, "mail", lambda signal: None)
    api = Api(request)
    publisher = Publisher(connection, api, settings)

    def replies(subject: str, payload: bytes):  # type: ignore[no-untyped-def]
        raise AssertionError("nothing is read")

    return JetStreamRoom(api, Admin(api, settings, replies), connection, publisher, settings)


def info(name: str, **state: object) -> dict[str, object]:
    return {"name": name, "config": {"durable_name": name}, **state}


async def test_all_that_are_named_are_told_of() -> None:
    names = ["mail__send", "mail__note", "audit__trail"]

    durables = await room(names, [info(name) for name in names]).durables()

    assert [one.durable for one in durables] == names


async def test_one_that_nothing_is_said_of_stops_it_all() -> None:
    names = ["mail__send", "mail__note", "audit__trail"]

    with pytest.raises(DriverError, match="nothing of audit__trail now"):
        await room(names, [info(name) for name in names[:2]]).durables()


async def test_who_reads_along_for_a_while_holds_no_room() -> None:
    passing = {"name": "tail", "config": {"name": "tail"}}

    durables = await room(["mail__send", "tail"], [info("mail__send"), passing]).durables()

    assert [one.durable for one in durables] == ["mail__send"]


async def test_what_is_told_of_one_is_read() -> None:
    said = info(
        "mail__send",
        delivered={"stream_seq": 40, "last_active": "2026-03-01T10:00:02Z"},
        ack_floor={"stream_seq": 30, "last_active": "2026-03-01T10:00:01Z"},
        num_pending=7,
        num_ack_pending=3,
        num_redelivered=2,
        num_waiting=1,
        paused=True,
        created="2026-03-01T09:00:00Z",
    )

    (one,) = await room(["mail__send"], [said]).durables()

    assert (one.delivered, one.acknowledged, one.handled) == (40, 30, 30)
    assert (one.pending, one.unsettled, one.redelivered, one.unread) == (7, 3, 2, 10)
    assert (one.waiting, one.paused) == (1, True)
    assert one.active is not None
    assert one.active.second == 2
