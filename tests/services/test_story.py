"""One request, told through several services under one correlation id."""

import pytest

from eventbus.delivery import Outcome, Reason
from tests.services.house import House, Watch, api, names, running

pytestmark = pytest.mark.nats


async def test_a_sign_up_is_one_story_from_the_request_to_the_mail(house: House) -> None:
    watch = Watch(house.audit)

    async with running(house.notification, house.audit), api(house.user) as client:
        answer = await client.post(
            "/users", json={"email": "ada@example.org"}, headers={"X-Correlation-ID": "story-1"}
        )
        await watch.until(lambda: len(watch.settled) == 2)

    created, sent = house.rows("correlation_id = 'story-1'")
    [mail] = house.mails()
    assert answer.status_code == 201
    assert (created.name, created.source, created.causation_id) == ("user.created", "user", None)
    assert (sent.name, sent.source) == ("email.sent", "notification")
    assert sent.causation_id == created.id
    assert (mail["To"], mail["X-Event-ID"]) == ("ada@example.org", created.id)
    assert mail["X-Correlation-ID"] == "story-1"


async def test_an_evening_of_traffic_ends_with_every_event_handled_or_a_dead_letter(
    house: House,
) -> None:
    watch, audited = Watch(house.notification), Watch(house.audit)

    async with (
        running(house.notification, house.audit),
        api(house.user) as users,
        api(house.vendor) as vendors,
        api(house.payment) as payments,
    ):
        await users.post("/users", json={"user_id": "u-1", "email": "ada@example.org"})
        await users.patch("/users/u-1", json={"name": "Ada"})
        made = await vendors.post("/vendors", json={"name": "C", "owner_email": "o@example.org"})
        await vendors.patch(f"/vendors/{made.json()['vendor_id']}", json={"status": "approved"})
        for domain in ("example.org", "flaky.example", "bounce.example"):
            card = {"amount": 5, "card": "4000000000000002"}
            await payments.post("/payments", json={"email": f"ada@{domain}", **card})
        await watch.until(lambda: len(watch.settled) == 7)
        await audited.until(lambda: len(audited.settled) == 12)

    retried, dead = watch.ended(Outcome.RETRY), watch.ended(Outcome.DEAD)
    assert [(one.listener, one.attempt) for one in retried] == [("payment_failed", 1)]
    assert [(one.listener, one.reason) for one in dead] == [("payment_failed", Reason.EXCEPTION)]
    assert names(house.rows()) == [
        *["email.sent"] * 5,
        *["payment.failed"] * 3,
        "user.created",
        "user.updated",
        "vendor.created",
        "vendor.status.changed",
    ]
    assert len(house.mails()) == 5
