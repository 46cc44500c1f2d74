"""Keys that an ordered listener has set aside, until somebody redrives their letters or frees them.

Where one event of a key can't be handled, no later one of that key may be: with
``on_failure="park_key"`` all of them become dead letters. A key is parked by a record that every
process of the service sees; the first letter's number in it tells one parking from the next.
"""

from dataclasses import dataclass, replace
from typing import Protocol

from eventbus import headers as h
from eventbus.delivery import Delivery, Reason

__all__ = ("ParkedKey", "ParkedKeys", "ParkedLog", "unparking")


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """A key that is set aside."""

    key: str
    first: int
    """The number of the dead letter that parked it."""
    last: int
    """The number of its newest letter."""
    redriven: int = 0
    """Up to this letter, all of them were redriven and handled."""


class ParkedLog(Protocol):
    """Keeps parked keys where every process of a service sees them, until they are freed.

    Everything here raises `DriverError` where it can't be done now.
    """

    async def keys(self, durable: str) -> frozenset[str]:
        """Return the keys that a durable's listener has parked."""
        ...

    async def read(self, durable: str, key: str) -> ParkedKey | None:
        """Return what is recorded; None for a key that isn't parked."""
        ...

    async def write(self, durable: str, parked: ParkedKey) -> None:
        """Record it, confirmed, in place of what was recorded of that key."""
        ...

    async def free(self, durable: str, key: str) -> None:
        """Drop the record: what comes of that key is handled again."""
        ...


def unparking(first: int, last: int = 0) -> str:
    """Return the header of what is redriven of a parked key: such events are handled.

    Args:
        first: The number of the letter that parked it; another parking isn't ended by it.
        last: On the last one that is redriven: the number of the newest letter among them. Once
            that one is handled and no newer letter is there, the key is free.
    """
    return f"{first} {last}" if last else str(first)


class ParkedKeys:
    """The parked keys of one durable, as the one process that works it knows them."""

    def __init__(self, log: ParkedLog, durable: str, retry_prefix: str) -> None:
        self._log = log
        self._durable = durable
        self._retry_prefix = retry_prefix
        self._keys: set[str] | None = None

    def renew(self) -> None:
        """Look again before the next event: another process may have worked the durable since."""
        self._keys = None

    async def problem(self, delivery: Delivery) -> str:
        """Return why a delivery must not be handled; empty where it may.

        Raises:
            DriverError: It isn't known now.
        """
        parked = await self._found(delivery)
        if parked is None or _unparks(self._unpark(delivery), parked):
            return ""
        return f"key '{parked.key}' is parked since dead letter {parked.first}"

    async def buried(self, delivery: Delivery, reason: Reason, letter: int) -> None:
        """Park the key of a delivery whose dead letter is stored under a number.

        What expired parks nothing: that it needn't be handled is what its expiry says.

        Raises:
            DriverError: It may not be recorded; the original must stay.
        """
        if reason is Reason.EXPIRED:
            return
        parked = await self._found(delivery)
        if parked is None or _unparks(self._unpark(delivery), parked):
            parked = ParkedKey(h.ordering_key(delivery.message.headers), letter, letter)
        else:
            parked = replace(parked, last=max(letter, parked.last))
        await self._log.write(self._durable, parked)
        await self._known(parked.key, is_parked=True)

    async def handled(self, delivery: Delivery) -> None:
        """Free the key of a delivery that was handled, if it is the last one that was redriven.

        Raises:
            DriverError: It may not be freed; the original must stay.
        """
        first, last = self._unpark(delivery)
        if not last:
            return
        parked = await self._found(delivery)
        if parked is None or parked.first != first:
            return
        if parked.last > last:  # another letter came while these were redriven
            await self._log.write(self._durable, replace(parked, redriven=last))
            return
        await self._log.free(self._durable, parked.key)
        await self._known(parked.key, is_parked=False)

    async def _found(self, delivery: Delivery) -> ParkedKey | None:
        """Return the record of a delivery's key; a key that isn't parked costs no question."""
        key = h.ordering_key(delivery.message.headers)
        if self._keys is None:
            self._keys = set(await self._log.keys(self._durable))
        if key not in self._keys:
            return None
        parked = await self._log.read(self._durable, key)
        if parked is None:  # freed by an operator
            await self._known(key, is_parked=False)
        return parked

    async def _known(self, key: str, *, is_parked: bool) -> None:
        if self._keys is None:
            return
        if is_parked:
            self._keys.add(key)
        else:
            self._keys.discard(key)

    def _unpark(self, delivery: Delivery) -> tuple[int, int]:
        """Return the letters in the header; only what came back to this listener may have it."""
        if not delivery.message.subject.startswith(self._retry_prefix):
            return 0, 0
        first, _, last = delivery.message.headers.get(h.UNPARK.lower(), "").partition(" ")
        return _number(first), _number(last)


def _unparks(numbers: tuple[int, int], parked: ParkedKey) -> bool:
    return numbers[0] == parked.first


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
