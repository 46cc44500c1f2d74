"""Payments: a charge and its event are stored together, or neither is; and statements recur."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from eventbus import EventService
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from schemas.stock import StockReserved
from services.notification.listeners import NotificationSettings
from services.payment.app import PaymentService, PaymentSettings
from tests.services.house import House, Watch, api, names, running

pytestmark = pytest.mark.nats

CHARGED, DECLINED = "4242424242424242", "4000000000000002"


def charge(card: str = CHARGED, email: str = "ada@example.org") -> dict[str, object]:
    return {"email": email, "amount": 1250, "card": card}


def reserved(order_id: str, card_ending: str = "4242") -> StockReserved:
    return StockReserved(
        order_id=order_id,
        product_id="cup",
        quantity=1,
        email="ada@example.org",
        amount=1250,
        currency="EUR",
        card_ending=card_ending,
        left=9,
    )


async def test_a_charge_has_a_row_and_an_event_of_one_id(
    house: House, eventbus_settings: Settings
) -> None:
    shop = EventService("shop", settings=eventbus_settings)
    watch = Watch(house.audit)

    async with running(house.audit, shop), api(house.payment) as client:
        for card in (CHARGED, DECLINED):
            await client.post("/payments", json=charge(card))
        await shop.emit(reserved("o-1"))
        await watch.until(lambda: len(watch.settled) == 4)

    booked = house.table("payment", "payment_id, refusal FROM charges")
    told = {row.key: row.name for row in house.rows() if row.name.startswith("payment.")}
    assert told == {
        id: "payment.failed" if refusal else "payment.completed" for id, refusal in booked
    }
    assert ("order-o-1", None) in booked
    assert len(booked) == 3


async def altered(house: House, how: str) -> None:
    """Alter a table of the payment service; on another thread, as it waits for the service."""

    def alter() -> None:
        with closing(sqlite3.connect(house.store_file("payment"), timeout=30)) as database:
            database.execute(f"ALTER TABLE {how}")

    await asyncio.to_thread(alter)


async def test_a_charge_whose_event_cant_be_stored_is_none(house: House) -> None:
    async with api(house.payment) as client:
        await altered(house, "eventbus_outbox RENAME TO moved")
        refused = await client.post("/payments", json=charge())
        await altered(house, "moved RENAME TO eventbus_outbox")
        taken = await client.post("/payments", json=charge())

    assert (refused.status_code, refused.json()["error"]) == (503, "store")
    booked = house.table("payment", "payment_id FROM charges")
    assert booked == [(taken.json()["payment_id"],)]


@pytest.mark.eventbus("real")
async def test_payments_are_taken_while_the_bus_is_away_and_told_when_it_is_back(
    nats_server: NatsServer, house: House
) -> None:
    watch = Watch(house.audit)

    async with running(house.audit), api(house.payment) as client:
        nats_server.kill()
        answers = [await client.post("/payments", json=charge()) for _ in range(3)]
        nats_server.restart()
        await watch.until(lambda: len(watch.settled) == 3, 60)

    assert [one.status_code for one in answers] == [201] * 3
    assert {row.key for row in house.rows()} == {one.json()["payment_id"] for one in answers}


async def test_an_order_that_is_handed_over_again_is_charged_once(
    eventbus_settings: Settings, tmp_path: Path
) -> None:
    outcomes: list[Outcome] = []
    for stream in ("first", "second"):  # it stands in both, under one id
        settings = eventbus_settings.model_copy(
            update={"namespace": f"{eventbus_settings.namespace}{stream}"}
        )
        payment = House(settings, tmp_path).payment
        shop = EventService("shop", settings=settings)
        watch = Watch(payment)
        async with running(payment, shop):
            await shop.emit(reserved("o-1"), id="e-1")
            await watch.until(lambda: bool(watch.settled))  # noqa: B023 - within the turn
        outcomes += [one.outcome for one in watch.settled]

    assert outcomes == [Outcome.OK, Outcome.DUPLICATE]
    assert House(eventbus_settings, tmp_path).table("payment", "payment_id FROM charges") == [
        ("order-o-1",)
    ]


async def test_a_statement_is_one_however_many_processes_there_are(house: House) -> None:
    watch = Watch(house.audit)
    processes = [house.another_payment(statement_every=1) for _ in range(2)]

    def made() -> list[Any]:
        return [row.payload for row in house.rows("name = 'statement.made'")]

    async with running(house.audit, *processes), httpx.AsyncClient(timeout=30) as client:
        await processes[0].http.started()
        await client.post(f"{processes[0].http.url}/payments", json=charge())
        await watch.until(lambda: len(made()) > 1 and made()[-1]["completed"] == 1)

    due = [row.payload for row in house.rows("name = 'statement.due'")]
    times = [one["due"] for one in due]  # type: ignore[index]
    assert len(times) == len(set(times))
    assert [one["due"] for one in made()] == times[: len(made())]


@pytest.mark.eventbus("real")
async def test_on_postgresql_a_payment_and_its_mail_have_a_row_each(
    nats_server: NatsServer, house: House, postgres_dsn: str
) -> None:
    payment = house.another_payment(store_url=postgres_dsn)
    notification = house.another_notification(store_url=postgres_dsn)
    watch = Watch(house.audit)

    async with running(house.audit, notification), api(payment) as client:
        await client.post("/payments", json=charge(DECLINED))
        await watch.until(lambda: len(watch.settled) == 2)

    assert names(house.rows()) == ["email.sent", "payment.failed"]
    assert [mail["Subject"] for mail in house.mails()] == ["Your payment failed"]


async def test_it_makes_its_database_where_it_runs(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTBUS_NATS_URL", nats_server.url)
    own, notified = PaymentSettings.load(), NotificationSettings.load()
    monkeypatch.setenv("EVENTBUS_STORE_URL", "sqlite+aiosqlite:///elsewhere/bank.db")
    service = PaymentService()

    for _ in range(2):
        async with service:
            pass

    assert (tmp_path / "elsewhere" / "bank.db").is_file()
    assert own.store_url != notified.store_url
