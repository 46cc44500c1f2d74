"""Dead letters against the real server: found, shown, grouped, counted and purged."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from eventbus import Context, Reject
from eventbus.attempts import History
from eventbus.delivery import Outcome, Reason
from eventbus.embedded import NatsServer
from eventbus.errors import (
    TopologyError,
)
from eventbus.ops.deadletters import (
    Where,
    find,
    groups,
    purge,
    show,
    stats,
)
from tests.integration.rig import plain, settings_of
from tests.integration.shop import (
    OrderPlaced,
    Shop,
    fail,
    letters,
    orders,
    redriven,
)

pytestmark = [pytest.mark.nats]


@pytest.fixture
async def shop(nats_server: NatsServer) -> AsyncIterator[Shop]:
    made = await Shop(settings_of(nats_server.url)).start()
    yield made
    await made.stop()


async def test_letters_are_found_by_one_of_their_tags(shop: Shop) -> None:
    await shop.listen("mail.send", fail)
    await shop.emit("o-1", tags=("vip", "eu"))
    await shop.emit("o-2", tags=("eu",))
    await shop.emit("o-3")
    await shop.until(Outcome.DEAD, 3)

    found = {tag: orders(await letters(shop.driver, Where(tag=tag))) for tag in ("vip", "eu", "v")}

    assert found == {"vip": ["o-1"], "eu": ["o-1", "o-2"], "v": []}
    assert (await letters(shop.driver, Where(tag="vip")))[0].tags == ("vip", "eu")


async def test_a_letter_tells_which_listener_failed_on_what_and_why(shop: Shop) -> None:
    await shop.listen("mail.send", fail)
    [id] = await shop.emit("o-1", correlation_id="story-1")
    await shop.until(Outcome.DEAD, 1)

    [letter] = await letters(shop.driver)

    assert (letter.number, letter.listener, letter.event) == (1, "mail.send", "order.placed")
    assert (letter.id, letter.key, letter.correlation_id) == (id, "o-1", "story-1")
    assert (letter.failure.reason, letter.failure.attempts) == (Reason.EXCEPTION, 1)
    assert letter.failure.error_message == "no such customer"
    assert letter.failure.original_subject == "events.order.placed"
    assert letter.message.body == b'{"order_id":"o-1","amount":1}'
    assert letter.redrives == ()
    assert await show(shop.driver, 1) == letter


async def test_a_letter_that_is_not_there_is_none(shop: Shop) -> None:
    first, _ = await shop.dead("o-1", "o-2")
    await purge(shop.driver, [first.place])

    assert await show(shop.driver, 1) is None
    assert await show(shop.driver, 2) is not None
    assert await show(shop.driver, 7) is None


async def test_letters_come_the_oldest_first_or_the_newest_first_up_to_a_limit(shop: Shop) -> None:
    await shop.dead("o-1", "o-2", "o-3")

    assert orders(await letters(shop.driver)) == ["o-1", "o-2", "o-3"]
    assert orders(await letters(shop.driver, limit=2)) == ["o-1", "o-2"]
    assert orders(await letters(shop.driver, limit=0)) == []
    assert orders(await letters(shop.driver, newest_first=True)) == ["o-3", "o-2", "o-1"]
    assert orders(await letters(shop.driver, newest_first=True, limit=2)) == ["o-3", "o-2"]


async def reject(event: OrderPlaced, _context: Context) -> None:
    raise Reject("not ours") if event.order_id == "o-2" else LookupError(event.order_id)


async def test_letters_are_found_by_any_condition_and_by_all_of_them(shop: Shop) -> None:
    await shop.listen("mail.send", fail)
    await shop.listen("audit.keep", reject)
    await shop.emit("o-1", "o-2")
    await shop.until(Outcome.DEAD, 4)
    everything = await letters(shop.driver)
    middle = everything[2].place.time
    mark = next(one for one in everything if one.listener == "mail.send").failure.fingerprint

    async def count(**conditions: Any) -> int:
        return len(await letters(shop.driver, Where(**conditions)))

    assert await count() == 4
    assert await count(service="mail") == 2
    assert await count(listener="keep") == 2
    assert await count(service="mail", listener="keep") == 0
    assert await count(event="order.placed") == await count(event="order.*") == 4
    assert await count(event="order.packed") == await count(event="user.>") == 0
    assert await count(reason=Reason.REJECTED) == 1
    assert await count(error="ValueError") == 2
    assert await count(error="alueError") == 0
    assert await count(error="eventbus.errors.Reject") == await count(error="Reject") == 1
    assert await count(fingerprint=mark) == 2
    assert await count(key="o-2") == 2
    assert await count(key="o-2", reason=Reason.EXCEPTION, service="audit") == 0
    assert await count(since=middle) == 2
    assert await count(until=middle) == 2
    assert await count(since=middle, until=middle) == 0
    assert await count(redriven=False) == 4
    assert await count(redriven=True) == 0


async def test_letters_of_one_kind_are_a_group_with_its_newest_as_a_sample(shop: Shop) -> None:
    await shop.listen("mail.send", fail)
    await shop.listen("audit.keep", reject)
    await shop.emit("o-1", "o-2", "o-3")
    await shop.until(Outcome.DEAD, 6)
    await redriven(shop.driver, *await letters(shop.driver, Where(service="mail"), limit=1))

    found = await groups(find(shop.driver, Where(until=datetime.now(UTC))))  # noqa: TID251

    kinds = [(one.sample.listener, one.sample.failure.error_type) for one in found]
    assert kinds[0] == ("mail.send", "ValueError")
    assert set(kinds[1:]) == {
        ("audit.keep", "LookupError"),
        ("audit.keep", "eventbus.errors.Reject"),
    }
    assert [one.letters for one in found][1:] == [2, 1]
    assert (found[0].redriven, found[1].redriven) == (1, 0)
    assert found[1].first < found[1].last == found[1].sample.place.time
    assert found[1].sample.key == "o-3"


async def test_a_purge_takes_the_letters_it_is_given_and_their_records(shop: Shop) -> None:
    await shop.listen("mail.send", fail)
    first, second, third = await shop.more_dead("o-1", "o-2", "o-3")
    await redriven(shop.driver, first)
    await redriven(shop.driver, third)
    await shop.until(Outcome.DEAD, 5)

    removed = await purge(shop.driver, [first.place, second.place])

    assert removed == 2
    assert [one.number for one in await letters(shop.driver)] == [3, 4, 5]
    assert [one.sequence for one in await shop.driver.letterbox.redrives()] == [3]
    assert await purge(shop.driver, [first.place]) == 0


async def test_stats_count_by_listener_and_reason_and_tell_the_room(shop: Shop) -> None:
    await shop.listen("mail.send", fail)
    await shop.listen("audit.keep", reject)
    await shop.emit("o-1", "o-2")
    await shop.until(Outcome.DEAD, 4)
    await redriven(shop.driver, *await letters(shop.driver, Where(reason=Reason.REJECTED)))
    await shop.until(Outcome.DEAD, 5)
    async with plain(shop.settings.nats_url) as client:
        await client.jetstream().publish("events-dlq.somebody", b"not a letter")

    found = await stats(shop.driver)

    assert (found.letters, found.redriven, found.foreign) == (5, 1, 1)
    assert (found.stream, found.max_bytes) == ("EVENTS_DLQ", 512 * 1024 * 1024)
    assert found.fill == found.bytes / (512 * 1024 * 1024)
    everything = await letters(shop.driver)
    assert (found.oldest, found.newest) == (everything[0].place.time, everything[-1].place.time)
    assert [(one.service, one.reason, one.letters, one.redriven) for one in found.counts] == [
        ("audit", Reason.REJECTED, 2, 1),
        ("mail", Reason.EXCEPTION, 2, 0),
        ("audit", Reason.EXCEPTION, 1, 0),
    ]


async def test_an_empty_stream_has_no_letters_groups_or_counts(shop: Shop) -> None:
    assert await letters(shop.driver) == []
    assert await groups(find(shop.driver)) == ()
    found = await stats(shop.driver)
    assert (found.letters, found.foreign, found.oldest, found.counts) == (0, 0, None, ())


async def test_what_is_no_letter_is_left_alone(shop: Shop) -> None:
    async with plain(shop.settings.nats_url) as client:
        stream = client.jetstream()
        await stream.publish("events-dlq.mail.send.order.placed", b"{}")
        headers = {"Eventbus-Dead-Reason": "boredom"}
        await stream.publish("events-dlq.mail.send.order.placed", b"{}", headers=headers)

    assert await letters(shop.driver) == []
    assert await show(shop.driver, 1) is None


async def test_a_record_that_somebody_else_wrote_is_not_read(shop: Shop) -> None:
    [letter] = await shop.dead("o-1")
    async with plain(shop.settings.nats_url) as client:
        stream = client.jetstream()
        for name, body in (
            ("x.y", b"[]"),
            ("1.2", b"{"),
            ("1.2", b"7"),
            ("1.9" + "9" * 30, b"[]"),
        ):
            await stream.publish(f"$KV.EVENTS_ATTEMPTS.redrive.{name}", body)

    assert await letters(shop.driver) == [letter]


async def test_without_a_stream_of_dead_letters_every_question_says_so(shop: Shop) -> None:
    async with plain(shop.settings.nats_url) as client:
        await client.jetstream().delete_stream("EVENTS_DLQ")

    for question in (letters(shop.driver), show(shop.driver, 1), stats(shop.driver)):
        with pytest.raises(TopologyError, match="stream EVENTS_DLQ: isn't there"):
            await question


async def test_failed_is_told_once_and_finds_the_letter_stored(shop: Shop) -> None:
    found: list[tuple[str, str, list[int]]] = []

    async def gave_up(event: OrderPlaced, context: Context, error: Exception) -> None:
        numbers = [one.number for one in await letters(shop.driver)]
        found.append((context.id, str(error), numbers))

    await shop.listen("mail.send", fail, failed=gave_up)
    [id] = await shop.emit("o-1")
    await shop.until(Outcome.DEAD, 1)

    assert found == [(id, "no such customer", [1])]


async def test_when_the_first_attempt_began_is_kept_where_every_process_sees_it(
    shop: Shop,
) -> None:
    began = datetime(2026, 3, 1, 10, tzinfo=UTC)
    log = shop.driver.attempts

    await log.write("mail__send.EVENTS.1", History(failed=1, settled=1, began=began))
    await log.write("mail__send.EVENTS.2", History(failed=1, settled=1))

    assert (await log.read("mail__send.EVENTS.1")).began == began
    assert (await log.read("mail__send.EVENTS.2")).began is None
