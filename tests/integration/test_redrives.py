"""Redrives against the real server: to one listener, recorded, and safe to break off."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import nats.errors
import pytest

from eventbus import Context, Event
from eventbus.delivery import Outcome, Reason
from eventbus.drivers.jetstream import admin
from eventbus.embedded import NatsServer
from eventbus.envelope import Message
from eventbus.errors import (
    BackpressureError,
    DriverError,
    InvalidEventError,
    UnknownEventError,
)
from eventbus.ops.deadletters import (
    Letter,
    Result,
    Where,
    edited,
    failed_again,
    find,
    redrive,
    show,
)
from eventbus.registry import Registry
from tests.integration.rig import plain, settings_of
from tests.integration.shop import (
    OrderPacked,
    OrderPlaced,
    Shop,
    Sometimes,
    fail,
    letters,
    redriven,
)
from tests.unit.conftest import StillClock

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def shop(nats_server: NatsServer) -> AsyncIterator[Shop]:
    made = await Shop(settings_of(nats_server.url)).start()
    yield made
    await made.stop()


async def test_a_redrive_reaches_the_listener_that_failed_and_no_other(shop: Shop) -> None:
    sometimes = Sometimes()
    await shop.listen("mail.send", sometimes)
    await shop.listen("audit.keep")
    await shop.listen("mail_copy.send", event=">")
    [id] = await shop.emit("o-1", correlation_id="story-1", headers={"x-tenant": "größer"})
    await shop.until(Outcome.DEAD, 1)
    await shop.until(Outcome.OK, 2)
    shop.runs.clear()
    sometimes.broken = False

    [done] = await redriven(shop.driver)
    await shop.until(Outcome.OK, 3)

    [(place, event, context)] = shop.runs
    assert (done.result, done.number, done.problem) == (Result.REDRIVEN, 1, "")
    assert (place, event) == ("mail.send", OrderPlaced(order_id="o-1"))
    assert (context.id, context.correlation_id, context.key) == (id, "story-1", "o-1")
    assert (context.attempt, context.headers) == (1, {"x-tenant": "größer"})
    assert context.subject == "events-retry.mail.send.order.placed"
    assert len(await letters(shop.driver)) == 1


async def test_what_is_sent_again_carries_nothing_of_the_death_and_of_the_server(
    shop: Shop,
) -> None:
    [letter] = await shop.dead("o-1")

    await redriven(shop.driver, letter)

    sent = [one async for one in shop.driver.admin.messages("EVENTS_LATER")][-1].message
    assert sent.id == "redrive:1:1"
    names = {name for name in sent.headers if name.startswith(("eventbus-", "nats-"))}
    assert names == {"eventbus-redrive", "nats-msg-id"}
    assert sent.headers["eventbus-redrive"] == "1"
    assert sent.body == letter.message.body


async def test_a_redrive_is_recorded_on_its_letter_which_keeps_its_number(shop: Shop) -> None:
    await shop.dead("o-1", "o-2")
    first, second = await letters(shop.driver)
    clock = StillClock()

    await redriven(shop.driver, first, clock=clock)
    clock.move(60)
    again = await show(shop.driver, 1)
    assert again is not None
    await redriven(shop.driver, again, clock=clock)

    letter = await show(shop.driver, 1)
    assert letter is not None
    assert [one.number for one in letter.redrives] == [1, 2]
    assert letter.redrives[1].at - letter.redrives[0].at == timedelta(minutes=1)
    assert letter.message == first.message
    assert await show(shop.driver, 2) == second
    where = Where(redriven=False, until=datetime.now(UTC))  # noqa: TID251
    assert 1 not in [one.number for one in await letters(shop.driver, where)]


async def test_the_record_of_a_redrive_has_no_age_limit(shop: Shop) -> None:
    [letter] = await shop.dead("o-1")

    await redriven(shop.driver, letter)

    bucket = shop.driver.admin.messages("KV_EVENTS_ATTEMPTS", "$KV.EVENTS_ATTEMPTS.redrive.>")
    [record] = [one.message async for one in bucket]
    assert record.headers["nats-ttl"] == "never"


async def test_many_redrives_of_one_letter_keep_their_count_and_the_last_ones(shop: Shop) -> None:
    [letter] = await shop.dead("o-1")

    for _ in range(25):
        found = await show(shop.driver, letter.number)
        assert found is not None
        await redriven(shop.driver, found)

    found = await show(shop.driver, letter.number)
    assert found is not None
    assert [one.number for one in found.redrives] == list(range(6, 26))


async def test_what_dies_again_is_a_letter_of_its_own_that_tells_which_redrive_it_was(
    shop: Shop,
) -> None:
    [first] = await shop.dead("o-1")

    await redriven(shop.driver, first)
    await shop.until(Outcome.DEAD, 2)
    [_, second] = await letters(shop.driver)
    await redriven(shop.driver, second)
    await shop.until(Outcome.DEAD, 3)
    [first, second, third] = await letters(shop.driver)
    async with plain(shop.settings.nats_url) as client:
        sent = await client.jetstream().get_msg("EVENTS_LATER", 2)
    names = Counter(name.lower() for name in sent.headers or {})

    assert [one.failure.redrive for one in (first, second, third)] == [0, 1, 2]
    assert {one.id for one in (first, second, third)} == {first.id}
    assert {one.failure.fingerprint for one in (first, second, third)} == {
        first.failure.fingerprint
    }
    assert len({one.message.id for one in (first, second, third)}) == 3
    assert names["eventbus-redrive"] == 1
    assert await failed_again(shop.driver, first) == (2, 3)
    assert await failed_again(shop.driver, second) == (3,)
    assert await failed_again(shop.driver, third) == ()


async def test_what_a_redriven_listener_emits_is_not_taken_for_what_it_emitted_before(
    shop: Shop,
) -> None:
    sometimes = Sometimes()

    async def pack(event: OrderPlaced, context: Context) -> None:
        await context.emit(OrderPacked(order_id=event.order_id))
        await sometimes(event, context)

    await shop.listen("mail.send", pack)
    await shop.listen("audit.keep", event=OrderPacked)
    [id] = await shop.emit("o-1")
    await shop.until(Outcome.DEAD, 1)
    sometimes.broken = False

    await redriven(shop.driver)
    await shop.until(Outcome.OK, 3)

    packed = [context for place, _, context in shop.runs if place == "audit.keep"]
    assert len({one.id for one in packed}) == len(packed) == 2
    assert {one.causation_id for one in packed} == {id}


async def test_a_run_of_redrives_ends_also_where_everything_fails_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "_BATCH", 1)
    await shop.dead("o-1", "o-2", "o-3")

    done = []
    async for one in redrive(shop.driver, find(shop.driver)):
        done.append(one)
        await shop.until(Outcome.DEAD, 3 + len(done))

    assert [one.letter.number for one in done] == [1, 2, 3]
    assert len(await letters(shop.driver)) == 6


async def test_a_dry_run_sends_and_records_nothing(shop: Shop) -> None:
    await shop.dead("o-1", "o-2")

    done = await redriven(shop.driver, dry_run=True, rate="1/h")

    assert [(one.letter.number, one.result) for one in done] == [
        (1, Result.PLANNED),
        (2, Result.PLANNED),
    ]
    assert [one async for one in shop.driver.admin.messages("EVENTS_LATER")] == []
    assert len(await letters(shop.driver, Where(redriven=False))) == 2


async def test_redrives_keep_to_a_rate(shop: Shop) -> None:
    await shop.dead("o-1", "o-2", "o-3")
    clock = StillClock()
    done = redrive(shop.driver, find(shop.driver), rate="30/m", clock=clock)

    times = [clock.monotonic() async for _ in done]

    assert times == [0, 2, 4]


async def test_what_is_no_rate_is_refused_before_anything_is_sent(shop: Shop) -> None:
    [letter] = await shop.dead("o-1")

    with pytest.raises(ValueError, match="isn't a rate"):
        await redriven(shop.driver, letter, rate="fast")

    assert [one async for one in shop.driver.admin.messages("EVENTS_LATER")] == []


def known(*events: type[Event]) -> Registry:
    registry = Registry()
    for event in events:
        registry.register(event)
    return registry


async def picky(event: OrderPlaced, _context: Context) -> None:
    if event.amount < 2:
        raise ValueError("too few")


async def test_an_edited_payload_is_what_the_listener_gets(shop: Shop) -> None:
    await shop.listen("mail.send", picky)
    [id] = await shop.emit("o-1")
    await shop.until(Outcome.DEAD, 1)
    [letter] = await letters(shop.driver)

    changed = edited(letter, {"order_id": "o-9", "amount": 2}, known(OrderPlaced))
    [done] = await redriven(shop.driver, changed)
    await shop.until(Outcome.OK, 1)

    _, event, context = shop.runs[-1]
    assert event == OrderPlaced(order_id="o-9", amount=2)
    assert (context.id, context.key) == (id, "o-9")
    [letter] = await letters(shop.driver)
    assert [one.edited for one in letter.redrives] == [True]
    assert letter.message.body == b'{"order_id":"o-1","amount":1}'
    assert done.letter.edited


async def test_an_edited_payload_that_does_not_fit_is_refused_with_its_fields(shop: Shop) -> None:
    [letter] = await shop.dead("o-1")
    wrong: Mapping[str, object] = {"order_id": 7, "amonut": 2}

    with pytest.raises(InvalidEventError) as refused:
        edited(letter, wrong, known(OrderPlaced))

    assert [field for field, _ in refused.value.problems] == ["order_id", "amonut"]
    with pytest.raises(UnknownEventError, match=r"no event 'order\.placed' is declared"):
        edited(letter, {}, known(OrderPacked))


async def test_a_letter_whose_payload_never_fitted_can_be_edited_and_handled(shop: Shop) -> None:
    await shop.listen("mail.send")
    headers = {"ce-id": "e-1", "ce-type": "order.placed"}
    await shop.driver.publish(Message("events.order.placed", headers, b'{"order_id": 7}', "e-1"))
    await shop.until(Outcome.DEAD, 1)
    [letter] = await letters(shop.driver, Where(reason=Reason.INVALID))

    await redriven(shop.driver, edited(letter, {"order_id": "o-7"}, known(OrderPlaced)))
    await shop.until(Outcome.OK, 1)

    [(_, event, context)] = shop.runs
    assert (event, context.id) == (OrderPlaced(order_id="o-7"), "e-1")


async def test_an_event_that_has_expired_is_handled_when_it_is_redriven(shop: Shop) -> None:
    await shop.listen("mail.send")
    headers = {
        "ce-id": "e-1",
        "ce-type": "order.placed",
        "Eventbus-Expires": "2020-01-01T00:00:00Z",
    }
    await shop.driver.publish(Message("events.order.placed", headers, b'{"order_id": "o-1"}'))
    await shop.until(Outcome.DEAD, 1)
    [letter] = await letters(shop.driver, Where(reason=Reason.EXPIRED))

    await redriven(shop.driver, letter)

    [ok] = await shop.until(Outcome.OK, 1)
    assert ok.id == "e-1"


class LostError(DriverError):
    """What a test raises in place of a crash."""


async def unrecorded(shop: Shop, letter: Letter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redrive a letter and crash before it is recorded."""

    async def crash(*_: object) -> None:
        raise LostError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(shop.driver.letterbox, "record", crash)
        with pytest.raises(LostError):
            await redriven(shop.driver, letter)


async def test_a_crash_before_a_redrive_is_recorded_neither_loses_nor_repeats_the_event(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sometimes = Sometimes()
    await shop.listen("mail.send", sometimes)
    await shop.emit("o-1")
    await shop.until(Outcome.DEAD, 1)
    sometimes.broken = False
    [letter] = await letters(shop.driver)

    await unrecorded(shop, letter, monkeypatch)
    assert await letters(shop.driver, Where(redriven=False)) == [letter]
    [done] = await redriven(shop.driver, letter)
    await shop.listen("mail.last", event=OrderPlaced)
    await shop.emit("o-2")
    await shop.until(Outcome.OK, 3)

    assert done.number == 1
    assert Counter(place for place, _, _ in shop.runs) == {"mail.send": 3, "mail.last": 1}
    [letter] = await letters(shop.driver)
    assert [one.number for one in letter.redrives] == [1]


async def test_an_edit_after_such_a_crash_is_not_taken_for_the_redrive_before_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.listen("mail.send", picky)
    await shop.emit("o-1")
    await shop.until(Outcome.DEAD, 1)
    [letter] = await letters(shop.driver)
    changed = edited(letter, {"order_id": "o-1", "amount": 2}, known(OrderPlaced))

    await unrecorded(shop, letter, monkeypatch)
    [done] = await redriven(shop.driver, changed)

    await shop.until(Outcome.OK, 1)
    assert done.number == 2
    assert shop.runs[-1][1] == OrderPlaced(order_id="o-1", amount=2)


async def test_letters_of_a_full_stream_can_be_redriven_and_recorded(
    nats_server: NatsServer,
) -> None:
    shop = await Shop(settings_of(nats_server.url, max_bytes=1024 * 1024)).start()
    sometimes = Sometimes()
    await shop.listen("mail.send", sometimes)
    await shop.more_dead("o-1")
    async with plain(nats_server.url) as client:
        for size in (100_000, 1_000):
            with suppress(nats.errors.Error):
                while True:
                    await client.jetstream().publish("events-dlq.filling", bytes(size))
    sometimes.broken = False

    await redriven(shop.driver)

    await shop.until(Outcome.OK, 1)
    assert len(await letters(shop.driver, Where(redriven=True))) == 1
    with pytest.raises(BackpressureError):
        await shop.driver.publish(Message("events-dlq.filling", {}, bytes(2000)))
    await shop.stop()


async def test_nothing_is_sent_where_the_durable_is_gone(shop: Shop) -> None:
    service = await shop.listen("mail.send", fail)
    await shop.more_dead("o-1")
    await service.stop()
    async with plain(shop.settings.nats_url) as client:
        await client.jetstream().delete_consumer("EVENTS", "mail__send")

    [done] = await redriven(shop.driver)

    assert (done.result, done.number) == (Result.REFUSED, 1)
    assert done.problem == "nobody would get it: durable mail__send isn't there any more"
    assert [one async for one in shop.driver.admin.messages("EVENTS_LATER")] == []
    assert len(await letters(shop.driver, Where(redriven=False))) == 1


async def test_a_redrive_waits_for_a_listener_that_does_not_work_now(shop: Shop) -> None:
    service = await shop.listen("mail.send", fail)
    await shop.more_dead("o-1")
    await service.stop()

    [done] = await redriven(shop.driver)
    await shop.listen("mail.send")
    await shop.until(Outcome.OK, 1)

    assert done.result is Result.REDRIVEN
    assert done.problem == "nobody works mail__send now, it gets the event when it starts"


async def test_what_came_on_no_event_s_subject_can_not_come_back_as_one(shop: Shop) -> None:
    await shop.listen("mail.send", event=">")
    await shop.driver.publish(Message("events.Odd", {"ce-id": "e-1"}, b"{}"))
    await shop.until(Outcome.DEAD, 1)

    [done] = await redriven(shop.driver)

    assert done.letter.event == "unknown"
    assert done.result is Result.REFUSED
    assert "'events.Odd' is no event's subject" in done.problem
