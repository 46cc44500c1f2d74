"""Keys set aside: which deliveries they stop, what parks them, and what frees them."""

import pytest

from eventbus import headers as h
from eventbus.delivery import Reason
from eventbus.envelope import Message
from eventbus.errors import NotConnectedError
from eventbus.parked import ParkedKey, ParkedKeys, unparking
from tests.unit.conftest import FakeDelivery

DURABLE = "mail__send"
RETRY = "events-retry.mail.send."


class DictParked:
    """A log of parked keys in memory; counts how often it was asked for all of them."""

    def __init__(self) -> None:
        self.records: dict[str, ParkedKey] = {}
        self.asked = 0
        self.fails: Exception | None = None

    async def keys(self, durable: str) -> frozenset[str]:
        """Return the parked keys."""
        self._check(durable)
        self.asked += 1
        return frozenset(self.records)

    async def read(self, durable: str, key: str) -> ParkedKey | None:
        """Return what is recorded."""
        self._check(durable)
        return self.records.get(key)

    async def write(self, durable: str, parked: ParkedKey) -> None:
        """Record it."""
        self._check(durable)
        self.records[parked.key] = parked

    async def free(self, durable: str, key: str) -> None:
        """Drop the record."""
        self._check(durable)
        self.records.pop(key, None)

    def _check(self, durable: str) -> None:
        assert durable == DURABLE
        if self.fails is not None:
            raise self.fails


def emitted(key: str = "o-1") -> FakeDelivery:
    """Return a delivery of an event as it was emitted."""
    return FakeDelivery(Message("events.order.placed", {h.KEY: key}, b""))


def redriven(first: int, last: int = 0, subject: str = RETRY + "order.placed") -> FakeDelivery:
    """Return a delivery of what was redriven of the key."""
    headers = {h.KEY: "o-1", h.UNPARK.lower(): unparking(first, last)}
    return FakeDelivery(Message(subject, headers, b""))


@pytest.fixture
def log() -> DictParked:
    return DictParked()


@pytest.fixture
def keys(log: DictParked) -> ParkedKeys:
    return ParkedKeys(log, DURABLE, RETRY)


@pytest.fixture
async def parked(keys: ParkedKeys) -> ParkedKeys:
    """Give the keys of which one was parked by letter 7, and has letter 9 too."""
    await keys.buried(emitted(), Reason.EXCEPTION, 7)
    await keys.buried(emitted(), Reason.KEY_PARKED, 9)
    return keys


async def test_a_letter_parks_its_key_and_no_other(keys: ParkedKeys, log: DictParked) -> None:
    await keys.buried(emitted(), Reason.EXCEPTION, 7)

    assert log.records == {"o-1": ParkedKey("o-1", 7, 7)}
    assert await keys.problem(emitted()) == "key 'o-1' is parked since dead letter 7"
    assert await keys.problem(emitted("o-2")) == ""


async def test_what_is_behind_belongs_to_the_same_parking(
    parked: ParkedKeys, log: DictParked
) -> None:
    assert log.records == {"o-1": ParkedKey("o-1", 7, 9)}


async def test_what_expired_parks_nothing(keys: ParkedKeys, log: DictParked) -> None:
    await keys.buried(emitted(), Reason.EXPIRED, 7)

    assert log.records == {}


async def test_keys_that_arent_parked_cost_one_question_in_all(
    keys: ParkedKeys, log: DictParked
) -> None:
    for number in range(3):
        await keys.problem(emitted(f"o-{number}"))

    assert log.asked == 1


async def test_after_another_process_may_have_worked_it_is_asked_again(
    keys: ParkedKeys, log: DictParked
) -> None:
    before = await keys.problem(emitted())
    log.records["o-1"] = ParkedKey("o-1", 7, 7)
    keys.renew()

    assert (before, bool(await keys.problem(emitted()))) == ("", True)


async def test_a_key_that_an_operator_freed_is_handled(
    parked: ParkedKeys, log: DictParked
) -> None:
    log.records.clear()

    assert await parked.problem(emitted()) == ""


async def test_what_is_redriven_of_it_is_handled(parked: ParkedKeys) -> None:
    assert await parked.problem(redriven(7)) == ""


@pytest.mark.parametrize(
    "delivery",
    [
        redriven(6),
        redriven(7, subject="events.order.placed"),
        redriven(7, subject="events-retry.mail.other.order.placed"),
    ],
    ids=["of another parking", "emitted by anybody", "of another listener"],
)
async def test_nothing_else_is(parked: ParkedKeys, delivery: FakeDelivery) -> None:
    assert await parked.problem(delivery) != ""


async def test_the_last_one_redriven_frees_the_key(parked: ParkedKeys, log: DictParked) -> None:
    await parked.handled(redriven(7))
    before = dict(log.records)
    await parked.handled(redriven(7, 9))

    assert (bool(before), log.records) == (True, {})
    assert await parked.problem(emitted()) == ""


async def test_with_newer_letters_the_key_stays_parked(
    parked: ParkedKeys, log: DictParked
) -> None:
    await parked.buried(emitted(), Reason.KEY_PARKED, 11)

    await parked.handled(redriven(7, 9))

    assert log.records == {"o-1": ParkedKey("o-1", 7, 11, redriven=9)}


async def test_one_that_fails_again_begins_another_parking(
    parked: ParkedKeys, log: DictParked
) -> None:
    await parked.buried(redriven(7), Reason.EXCEPTION, 12)

    assert log.records == {"o-1": ParkedKey("o-1", 12, 12)}
    assert await parked.problem(redriven(7, 9)) != ""


async def test_the_last_one_of_an_older_redrive_frees_nothing(
    parked: ParkedKeys, log: DictParked
) -> None:
    await parked.handled(redriven(5, 20))

    assert log.records == {"o-1": ParkedKey("o-1", 7, 9)}


async def test_where_it_cant_be_known_nothing_is_handled(
    keys: ParkedKeys, log: DictParked
) -> None:
    log.fails = NotConnectedError("no connection")

    with pytest.raises(NotConnectedError):
        await keys.problem(emitted())
