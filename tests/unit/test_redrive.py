"""Redrives as dispatch sees them, and the rate of an operator's run."""

from typing import Any

import pytest

from eventbus import deadletter
from eventbus.envelope import Message
from eventbus.event import Event
from eventbus.middleware.base import Context
from eventbus.ops.deadletters.redriving import per_second
from eventbus.retry import Retry
from tests.unit.bench import RETRY, Bench, EmailSent, arriving, raising

ONCE = Retry(attempts=1)


def redriven(times: Any = 1, subject: str = RETRY + "user.created", **headers: str) -> Message:
    return arriving(subject=subject, eventbus_redrive=str(times), **headers)


async def emitted_id(bench: Bench, message: Message) -> str | None:
    async def listener(event: Event, context: Context) -> None:
        await context.emit(EmailSent(to="ada@example.org"))

    await bench.handle(listener, bench.delivery(message))
    return bench.driver.published[-1].id


async def test_each_redrive_emits_under_ids_of_its_own_that_repeat(bench: Bench) -> None:
    ids = [
        await emitted_id(bench, message)
        for message in (arriving(), redriven(1), redriven(2), redriven(1))
    ]

    assert len(set(ids)) == 3
    assert ids[1] == ids[3]


@pytest.mark.parametrize(
    "forged",
    [
        redriven(1, subject="events.user.created"),
        redriven(1, subject="events-retry.mail.other.user.created"),
        redriven("many"),
        redriven("-1"),
        redriven("²"),
        redriven("9" * 5000),
    ],
    ids=["own subject", "another listener's", "words", "negative", "no digit", "endless"],
)
async def test_only_a_count_on_its_own_retry_subject_is_believed(
    bench: Bench, forged: Message
) -> None:
    assert await emitted_id(bench, forged) == await emitted_id(bench, arriving())


async def test_a_letter_tells_which_redrive_failed(bench: Bench) -> None:
    await bench.handle(raising(ValueError()), bench.delivery(redriven(3)), retry=ONCE)

    assert bench.letter().redrive == 3


async def test_a_letter_of_what_was_not_redriven_does_not_speak_of_it(bench: Bench) -> None:
    forged = redriven(3, subject="events.user.created")

    await bench.handle(raising(ValueError()), bench.delivery(forged), retry=ONCE)

    (letter,) = bench.driver.published
    assert deadletter.read(letter).redrive == 0
    assert not [name for name in letter.headers if name.startswith("Eventbus-Dead-Redrive")]


async def test_a_redriven_event_that_can_not_be_read_tells_its_redrive_too(bench: Bench) -> None:
    await bench.handle(raising(ValueError()), bench.delivery(redriven(2, ce_type="x.y")))

    assert bench.letter().redrive == 2


async def test_a_parked_redrive_stays_one(bench: Bench) -> None:
    slow = Retry(attempts=2, delays=(60,))

    await bench.handle(raising(ValueError()), bench.delivery(redriven(2)), retry=slow)

    ((parked, _, _),) = bench.driver.scheduled
    assert parked.headers["eventbus-redrive"] == "2"


@pytest.mark.parametrize(
    ("rate", "each_second"),
    [("20/s", 20), ("30/m", 0.5), ("36/h", 0.01), ("0.5", 0.5), ("7", 7), (3, 3), (2.5, 2.5)],
)
def test_a_rate_is_a_number_for_each_second_or_says_for_what(
    rate: float | str, each_second: float
) -> None:
    assert per_second(rate) == pytest.approx(each_second)


@pytest.mark.parametrize(
    "rate", ["", "fast", "20/x", "20/", "20/5s", "/s", "0/s", "-1/s", "inf", "nan", 0, -1, "1e9"]
)
def test_what_is_no_rate_is_refused(rate: float | str) -> None:
    with pytest.raises(ValueError, match="isn't a rate; write '20/s'"):
        per_second(rate)
