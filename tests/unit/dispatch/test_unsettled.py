"""What is told where a settlement, or the letter before it, fails."""

from collections.abc import Awaitable, Callable

import pytest

from eventbus.errors import (
    BackpressureError,
    EmitUnknown,
    NotConnectedError,
    PayloadTooLargeError,
    Reject,
    SettleError,
    SubjectError,
)
from eventbus.settlement import STAY_DELAY
from eventbus.telemetry.signals import (
    Stuck,
)
from tests.unit.bench import (
    DLQ,
    Bench,
    raising,
    welcome,
)


@pytest.mark.parametrize(
    "error",
    [
        NotConnectedError("away"),
        BackpressureError(stream="EVENTS_DLQ", problem="full"),
        EmitUnknown(name="a.b", id="1", after=15, tries=7),
        SubjectError(value="x", problem="can't be published to"),
    ],
    ids=lambda error: error.code,
)
async def test_without_its_dead_letter_the_original_stays(bench: Bench, error: Exception) -> None:
    bench.driver.raises = [error]

    ending = await bench.handle(raising(Reject("x")))

    assert bench.driver.journal == ["publish failed", f"nak {STAY_DELAY:g}"]
    assert ending == Stuck("user.created", "mail", "send", error)


async def test_a_letter_that_is_too_large_goes_without_its_stack(bench: Bench) -> None:
    bench.driver.raises = [PayloadTooLargeError(name="user.created", size=9, limit=8)]

    await bench.handle(raising(Reject("x")))

    assert bench.driver.journal == ["publish failed", DLQ, "term: dead letter: rejected"]
    letter = bench.letter()
    assert (letter.error_stack, letter.error_message) == ("", "x")


async def test_a_letter_that_is_still_too_large_goes_without_the_body(bench: Bench) -> None:
    bench.driver.raises = [PayloadTooLargeError(name="user.created", size=9, limit=8)] * 2

    await bench.handle(raising(Reject("x")))

    assert bench.driver.journal[-2:] == [DLQ, "term: dead letter: rejected"]
    letter = bench.driver.published[-1]
    assert letter.body == b""
    assert int(letter.headers["Eventbus-Dead-Body-Left-Out"]) > 0


async def test_a_letter_that_is_too_large_in_any_form_leaves_the_original(bench: Bench) -> None:
    bench.driver.raises = [PayloadTooLargeError(name="user.created", size=9, limit=8)] * 3

    ending = await bench.handle(raising(Reject("x")))

    assert bench.driver.journal == ["publish failed"] * 3 + [f"nak {STAY_DELAY:g}"]
    assert isinstance(ending, Stuck)


@pytest.mark.parametrize(
    ("listener", "how", "journal"),
    [
        (welcome, "ack", ["ack"]),
        (raising(Reject("x")), "term", [DLQ, "term: dead letter: rejected"]),
        (raising(ValueError("x")), "nak", ["nak 2"]),
    ],
    ids=["ack", "term", "nak"],
)
async def test_a_settlement_that_is_not_confirmed_is_told_and_not_raised(
    bench: Bench, listener: Callable[..., Awaitable[None]], how: str, journal: list[str]
) -> None:
    error = SettleError("no answer")

    ending = await bench.handle(listener, bench.delivery(fails={how: error}))

    assert bench.driver.journal == journal
    assert ending == Stuck("user.created", "mail", "send", error)


async def test_a_repeated_death_has_the_same_letter(bench: Bench) -> None:
    await bench.handle(raising(Reject("x")), bench.delivery(fails={"term": SettleError("x")}))
    await bench.handle(raising(Reject("x")), bench.delivery(deliveries=2))

    first, second = bench.driver.published
    assert first.id == second.id
