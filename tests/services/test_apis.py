"""The HTTP interfaces of the user, vendor and payment services."""

import httpx
import pytest

from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from tests.services.house import House, Row, Watch, api, names, running

pytestmark = pytest.mark.nats


def told(rows: list[Row]) -> list[tuple[str, object]]:
    return [(row.name, row.payload) for row in rows]


async def test_the_life_of_an_account_is_told_in_its_order(house: House) -> None:
    watch = Watch(house.audit)

    async with running(house.audit), api(house.user) as client:
        new = {"user_id": "u-1", "email": "ada@example.org"}
        created = await client.post("/users", json=new)
        seen = await client.get("/users/u-1")
        changed = await client.patch("/users/u-1", json={"name": "Ada"})
        same = await client.patch("/users/u-1", json={"name": "Ada"})
        login = await client.post("/users/u-1/login")
        deleted = await client.delete("/users/u-1")
        gone = await client.get("/users/u-1")
        await watch.until(lambda: len(watch.settled) == 4)

    ada = {**new, "name": None}
    assert [one.status_code for one in (created, seen, changed, same)] == [201, 200, 200, 200]
    assert [one.status_code for one in (login, deleted, gone)] == [204, 204, 404]
    assert (created.json(), seen.json(), changed.json()) == (ada, ada, {**ada, "name": "Ada"})
    assert told(house.rows()) == [
        ("user.created", ada),
        ("user.updated", {**ada, "name": "Ada", "changed": ["name"]}),
        ("user.login", {"user_id": "u-1"}),
        ("user.deleted", {"user_id": "u-1"}),
    ]
    assert {row.key for row in house.rows()} == {"u-1"}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": "ada@example.org", "age": 36}, "age"),
        ({"email": "ada@example.org", "user_id": "a/b"}, "user_id"),
        ({"email": "ada@example.org", "name": 1}, "name"),
    ],
)
async def test_a_sign_up_that_doesnt_fit_names_the_field_and_emits_nothing(
    house: House, body: dict[str, object], problem: str
) -> None:
    watch = Watch(house.audit)

    async with running(house.audit), api(house.user) as client:
        answer = await client.post("/users", json=body)
        broken = await client.post("/users", content=b"{")
        await client.post("/users", json={"user_id": "last", "email": "ada@example.org"})
        await watch.until(lambda: len(watch.settled) == 1)

    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["problems"]] == [problem]
    assert (broken.status_code, broken.json()["error"]) == (400, "request.json")
    assert [row.key for row in house.rows()] == ["last"]


async def test_an_id_that_is_taken_is_a_conflict(house: House) -> None:
    async with api(house.user) as client:
        new = {"user_id": "u-1", "email": "ada@example.org"}
        first = await client.post("/users", json=new)
        second = await client.post("/users", json=new)

    assert (first.status_code, second.status_code) == (201, 409)


@pytest.mark.eventbus("real")
async def test_without_the_bus_nothing_changes_and_the_client_is_told_when_to_return(
    nats_server: NatsServer, house: House
) -> None:
    house = House(
        Settings(nats_url=nats_server.url),
        house.maildir.parent,
        emit_timeout=0.5,
        publish_timeout=0.2,
    )
    new = {"user_id": "u-1", "email": "ada@example.org"}

    async with api(house.user) as client:
        nats_server.kill()
        refused = await client.post("/users", json=new)
        unseen = await client.get("/users/u-1")
        nats_server.restart()
        again = await _until_accepted(client, new)

    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (unseen.status_code, again) == (404, 201)


async def _until_accepted(client: httpx.AsyncClient, new: dict[str, str]) -> int:
    for _ in range(40):
        answer = await client.post("/users", json=new)
        if answer.status_code != 503:
            break
    return answer.status_code


async def test_a_vendor_is_pending_until_somebody_decides(house: House) -> None:
    watch = Watch(house.audit)

    async with running(house.audit), api(house.vendor) as client:
        new = {"name": "Cups Ltd", "owner_email": "owner@example.org"}
        made = await client.post("/vendors", json=new)
        path = f"/vendors/{made.json()['vendor_id']}"
        approved = await client.patch(path, json={"status": "approved"})
        same = await client.patch(path, json={"status": "approved"})
        wrong = await client.patch(path, json={"status": "famous"})
        unknown = await client.patch("/vendors/nobody", json={"status": "approved"})
        seen = await client.get(path)
        await watch.until(lambda: len(watch.settled) == 2)

    vendor = {**new, "vendor_id": made.json()["vendor_id"]}
    assert (made.status_code, made.json()) == (201, {**vendor, "status": "pending"})
    assert [one.status_code for one in (approved, same, wrong, unknown)] == [200, 200, 422, 404]
    assert seen.json() == {**vendor, "status": "approved"}
    assert told(house.rows()) == [
        ("vendor.created", vendor),
        ("vendor.status.changed", {**vendor, "previous": "pending", "status": "approved"}),
    ]


async def test_the_card_decides_how_a_payment_ends_and_is_told_to_nobody(house: House) -> None:
    watch = Watch(house.audit)
    order = {"email": "ada@example.org", "amount": 1250, "currency": "EUR"}

    async with running(house.audit), api(house.payment) as client:
        paid = await client.post("/payments", json={**order, "card": "4000000000000077"})
        refused = await client.post("/payments", json={**order, "card": "4000000000009995"})
        wrong = await client.post("/payments", json={**order, "amount": 0, "card": "1"})
        await watch.until(lambda: len(watch.settled) == 2)

    assert (paid.status_code, paid.json()["status"]) == (201, "completed")
    assert (refused.status_code, refused.json()["reason"]) == (402, "insufficient funds")
    assert [one["field"] for one in wrong.json()["problems"]] == ["amount", "card"]
    assert names(house.rows()) == ["payment.completed", "payment.failed"]
    assert told(house.rows())[1] == (
        "payment.failed",
        {
            **order,
            "payment_id": refused.json()["payment_id"],
            "reason": "insufficient funds",
            "order_id": None,
        },
    )
    assert not [row for row in house.rows() if "4000000" in row.data]
