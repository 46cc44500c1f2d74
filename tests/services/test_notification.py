"""Mails: whom they reach, what happens when they can't be sent, and that each is written once."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from eventbus import EventService
from eventbus.delivery import Outcome, Reason
from eventbus.embedded import NatsServer
from eventbus.errors import SettingsError
from eventbus.settings import Settings
from schemas.payment import PaymentCompleted, PaymentFailed
from schemas.user import UserCreated, UserUpdated
from schemas.vendor import VendorStatus, VendorStatusChanged
from services.notification import mails
from services.notification.listeners import NotificationService, NotificationSettings
from tests.services.house import House, Watch, running

pytestmark = pytest.mark.nats


@pytest.fixture
def elsewhere(eventbus_settings: Settings) -> EventService:
    """Another service, which emits what the real ones would."""
    return EventService("elsewhere", settings=eventbus_settings)


def ada(email: str = "ada@example.org") -> UserCreated:
    return UserCreated(user_id="u-1", email=email, name="Ada")


def failed(email: str) -> PaymentFailed:
    return PaymentFailed(
        payment_id="p-1", email=email, amount=1250, currency="EUR", reason="card declined"
    )


def vendor(status: VendorStatus) -> VendorStatusChanged:
    return VendorStatusChanged(
        vendor_id="v-1",
        name="Cups Ltd",
        owner_email="owner@example.org",
        previous="pending",
        status=status,
    )


async def test_each_reason_to_write_has_its_mail_and_tells_that_it_is_sent(
    house: House, elsewhere: EventService
) -> None:
    watch = Watch(house.audit)

    async with running(house.notification, house.audit, elsewhere):
        for event in (
            ada(),
            UserUpdated(user_id="u-1", email="ada@example.org", changed=("email", "name")),
            vendor("approved"),
            failed("ada@example.org"),
        ):
            await elsewhere.emit(event)
        await watch.until(lambda: len(watch.settled) == 8)

    mails = {mail["Subject"]: (mail["To"], mail.get_payload()) for mail in house.mails()}
    assert mails == {
        "Welcome": ("ada@example.org", "Hello Ada,\n\nyour account is ready.\n"),
        "Your profile was changed": (
            "ada@example.org",
            "Hello ada@example.org,\n\nyour email and name was changed.\n",
        ),
        "Your vendor account is approved": (
            "owner@example.org",
            "Hello,\n\nCups Ltd is approved and may sell from now on.\n",
        ),
        "Your payment failed": (
            "ada@example.org",
            "Hello,\n\nyour payment p-1 failed: card declined.\n",
        ),
    }
    rows = house.table("notification", "message_id FROM sent_mails")
    assert sorted(rows) == sorted((mail["Message-ID"],) for mail in house.mails())
    sent = [row.payload for row in house.rows("name = 'email.sent'")]
    assert sorted(one["template"] for one in sent) == [  # type: ignore[index]
        "payment_failed",
        "profile_changed",
        "vendor_approved",
        "welcome",
    ]
    assert {one["message_id"] for one in sent} == {  # type: ignore[index]
        mail["Message-ID"] for mail in house.mails()
    }


async def test_a_run_that_ends_with_the_mail_just_out_leaves_one_mail_and_one_row(
    house: House, elsewhere: EventService, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = house.another_notification()
    watch = Watch(other)
    monkeypatch.setattr(mails, "SLOWNESS", 3600.0)

    async with running(elsewhere):
        await house.notification.start()
        await elsewhere.emit(failed("ada@slow.example"))
        await until(lambda: bool(os.listdir(house.maildir / "new")))
        await house.notification.stop(grace=0)
        before = house.table("notification", "event_id FROM sent_mails")
        monkeypatch.setattr(mails, "SLOWNESS", 0.0)
        async with running(other):
            await watch.until(lambda: bool(watch.ended(Outcome.OK)))

    [mail] = house.mails()
    assert before == []
    assert house.table("notification", "event_id, recipient FROM sent_mails") == [
        (mail["X-Event-ID"], "ada@slow.example")
    ]
    assert house.table("notification", "count(*) FROM eventbus_inbox") == [(1,)]


async def test_the_buyer_of_a_paid_order_is_asked_about_it_later_and_once(
    house: House, elsewhere: EventService
) -> None:
    notification = house.another_notification(follow_up_after=1)
    watch = Watch(notification)
    paid = PaymentCompleted(
        payment_id="p-1", email="ada@example.org", amount=1250, currency="EUR", order_id="o-1"
    )

    async with running(notification, elsewhere):
        for payment in (paid, paid, paid.model_copy(update={"order_id": None})):
            await elsewhere.emit(payment)
        await watch.until(lambda: len(watch.settled) == 4)

    assert [mail["Subject"] for mail in house.mails()] == ["How do you like it?"]
    assert len(watch.ended(Outcome.DROPPED, "plan_follow_up")) == 1


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what is on disk."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a folder tells nobody
            await asyncio.sleep(0.01)


async def test_a_vendor_that_isnt_approved_gets_no_mail(
    house: House, elsewhere: EventService
) -> None:
    watch = Watch(house.notification)

    async with running(house.notification, elsewhere):
        await elsewhere.emit(vendor("rejected"))
        await watch.until(lambda: len(watch.settled) == 1)

    assert watch.settled[0].outcome is Outcome.OK
    assert house.mails() == []


async def test_a_mail_that_is_refused_for_now_is_sent_by_the_second_attempt(
    house: House, elsewhere: EventService
) -> None:
    watch = Watch(house.notification)

    async with running(house.notification, elsewhere):
        await elsewhere.emit(failed("ada@flaky.example"))
        await watch.until(lambda: bool(watch.ended(Outcome.OK)))

    assert [(one.outcome, one.attempt) for one in watch.settled] == [
        (Outcome.RETRY, 1),
        (Outcome.OK, 2),
    ]
    assert "greylisted" in str(watch.settled[0].error)
    assert [mail["To"] for mail in house.mails()] == ["ada@flaky.example"]


async def test_a_mail_that_is_refused_for_good_is_a_dead_letter_at_once(
    house: House, elsewhere: EventService
) -> None:
    watch = Watch(house.notification)

    async with running(house.notification, elsewhere):
        await elsewhere.emit(failed("ada@bounce.example"))
        await watch.until(lambda: bool(watch.settled))

    [settled] = watch.settled
    assert (settled.outcome, settled.attempt) == (Outcome.DEAD, 1)
    assert settled.reason is Reason.EXCEPTION
    assert "no such mailbox" in str(settled.error)
    assert house.mails() == []


async def handled(url: str, maildir: Path, namespace: str) -> None:
    """Let one event be handled; in another namespace, with another inbox, it is once more."""
    common = {"nats_url": url, "namespace": namespace}
    store = f"sqlite+aiosqlite:///{maildir.parent}/{namespace}.sqlite3"
    service = NotificationService(NotificationSettings(**common, maildir=maildir, store_url=store))
    elsewhere = EventService("elsewhere", settings=Settings(**common))
    watch = Watch(service)
    async with running(service, elsewhere):
        await elsewhere.emit(ada(), id="e-1")
        await watch.until(lambda: len(watch.settled) == 1)
    assert watch.settled[0].outcome is Outcome.OK


@pytest.mark.eventbus("real")
async def test_a_mail_is_written_once_however_often_its_event_is_handled(
    nats_server: NatsServer, house: House
) -> None:
    await handled(nats_server.url, house.maildir, "first")
    await handled(nats_server.url, house.maildir, "second")

    assert len(house.mails()) == 1
    assert os.listdir(house.maildir / "tmp") == []


@pytest.mark.eventbus("real")
async def test_a_mail_that_somebody_has_read_isnt_written_again(
    nats_server: NatsServer, house: House
) -> None:
    await handled(nats_server.url, house.maildir, "first")
    [mail] = (house.maildir / "new").iterdir()
    mail.rename(house.maildir / "cur" / f"{mail.name}:2,S")

    await handled(nats_server.url, house.maildir, "second")

    assert os.listdir(house.maildir / "new") == []


async def test_an_odd_name_or_address_is_only_text(house: House, elsewhere: EventService) -> None:
    watch = Watch(house.notification)
    odd = UserCreated(user_id="u-1", email="søren+x@example.org", name="A\r\nBcc: all@example.org")

    async with running(house.notification, elsewhere):
        await elsewhere.emit(odd, id="a/../b<c>")
        await watch.until(lambda: len(watch.settled) == 1)

    [mail] = house.mails()
    assert (mail["Bcc"], mail["X-Event-ID"]) == (None, "a/../b<c>")


async def test_it_doesnt_start_where_it_cant_write(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    settings = NotificationSettings(nats_url=nats_server.url, maildir=tmp_path / "file" / "mail")

    with pytest.raises(SettingsError, match="EVENTBUS_MAILDIR="):
        await NotificationService(settings).start()


async def test_it_reads_where_its_mails_and_rows_go_when_it_starts(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = NotificationService()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTBUS_NATS_URL", nats_server.url)
    monkeypatch.setenv("EVENTBUS_MAILDIR", str(tmp_path / "a" / "mail"))

    async with service:
        made = sorted(os.listdir(tmp_path / "a" / "mail"))
        database = (tmp_path / ".eventbus" / "notification.sqlite3").is_file()

    assert made == ["cur", "new", "tmp"]
    assert database
