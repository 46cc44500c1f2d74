"""Redrive what is parked: in the sequence of its events, and the last one frees its key."""

from dataclasses import dataclass

from eventbus import headers as h
from eventbus.delivery import Reason
from eventbus.drivers.jetstream.driver import JetStreamDriver
from eventbus.ops.deadletters.letters import Letter, Where, find
from eventbus.parked import ParkedKey, unparking

__all__ = ("Parking", "of_key")


@dataclass(frozen=True, slots=True)
class _Parked:
    """A parked key, and its letters as they were when they were looked at."""

    record: ParkedKey
    newest: int
    left: set[int]
    """Those that still have to be redriven."""


class Parking:
    """The parked keys of which letters are redriven in one run."""

    def __init__(self, driver: JetStreamDriver) -> None:
        self._driver = driver
        self._keys: dict[str, frozenset[str]] = {}
        self._found: dict[tuple[str, str], _Parked | None] = {}

    async def unpark(self, letter: Letter) -> tuple[str, int | None]:
        """Return the header that lets a letter's event through, empty where its key isn't parked.

        And how many of its key's letters are left then; None where its key isn't parked. The
        header of the last one frees the key once its event is handled.

        Raises:
            DriverError: It can't be known now.
        """
        parked = await self._parked(letter)
        if parked is None:
            return "", None
        parked.left.discard(letter.number)
        last = 0 if parked.left else parked.newest
        return unparking(parked.record.first, last), len(parked.left)

    async def _parked(self, letter: Letter) -> _Parked | None:
        durable = f"{letter.failure.service}__{letter.failure.listener}"
        key = h.ordering_key(letter.message.headers)
        if durable not in self._keys:
            self._keys[durable] = await self._driver.parked.keys(durable)
        if key not in self._keys[durable]:
            return None
        if (durable, key) not in self._found:
            self._found[durable, key] = await self._look(letter, durable, key)
        return self._found[durable, key]

    async def _look(self, letter: Letter, durable: str, key: str) -> _Parked | None:
        # The record first: a letter that comes between the two is newer than what is freed.
        record = await self._driver.parked.read(durable, key)
        if record is None:
            return None
        where = Where(letter.failure.service, letter.failure.listener, redriven=False)
        left = {
            one.number
            async for one in find(self._driver, where)
            if h.ordering_key(one.message.headers) == key
            and (one.number >= record.first or one.failure.reason is Reason.KEY_PARKED)
        }
        return _Parked(record, max({record.last, *left}), left)


async def of_key(driver: JetStreamDriver, where: Where) -> list[Letter]:
    """Return the letters of one key that fit, in the sequence of their events.

    One that was redriven and failed again has a newer letter than those of the events behind it;
    it stands where it was first. Raises as `find` does.

    Args:
        driver: A connected one.
        where: With a key; the other conditions choose among its letters.
    """
    whose = Where(where.service, where.listener, key=where.key)
    letters = [one async for one in find(driver, whose)]
    places: dict[tuple[str, str], int] = {}
    for one in letters:
        places.setdefault((one.listener, one.id), one.number)
    letters.sort(key=lambda one: (places[one.listener, one.id], one.number))
    return [one for one in letters if where.takes(one)]
