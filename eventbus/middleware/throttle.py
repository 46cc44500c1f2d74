"""`Throttle`: at most so many runs of a listener within a time, in all processes together."""

import asyncio
import json
import math
import re
from dataclasses import dataclass, field
from typing import TypeAlias

from typing_extensions import override

from eventbus.duration import seconds
from eventbus.errors import DeclarationError, DriverError, Postpone
from eventbus.limits import Limits
from eventbus.middleware.base import CallNext, Context, Middleware
from eventbus.middleware.limit import UNREACHABLE, By, Limit, key_by

__all__ = ("Throttle", "place_in")

PARTS = 20
"""In how many parts the time moves on; the rate is kept to one part of it."""
TRIES = 8
"""How often a place is tried for that other processes take at the same moment."""
_RATE = re.compile(r"(\d+)\s*/\s*(.+)")

Counts: TypeAlias = dict[int, int]
"""Runs by the number of the part in which they began."""


@dataclass(frozen=True)
class Throttle(Limit):
    """Begin at most ``count`` runs within any ``span``: ``"10/1s"``, ``"100/m"``, ``"5/2h"``.

    All processes of the service together keep to it, by their clocks, which must agree to a few
    hundredths of the span. What is too much goes back to the server until there is a place for
    it, and uses up no attempt; without ``by`` the process pulls nothing meanwhile. A retry is a
    run like any other.

    Raises:
        DeclarationError: The rate makes no sense.
    """

    rate: str
    by: By | None = None
    """A limit for each value of a field, or of a function of the event; else one for all."""
    count: int = field(init=False, repr=False, compare=False)
    """The most runs within the span."""
    span: float = field(init=False, repr=False, compare=False)
    """Seconds."""

    def __post_init__(self) -> None:
        """Read the rate."""
        match = _RATE.fullmatch(self.rate.strip()) if isinstance(self.rate, str) else None
        try:
            count, text = (int(match[1]), match[2].strip()) if match else (0, "0")
            span = seconds(text if text[0].isdecimal() else f"1{text}")
        except ValueError:
            count, span = 0, 0.0
        if not count or not span:
            raise DeclarationError(
                f"Throttle({self.rate!r}) isn't a rate; write a number and a time, like '10/1s'"
            )
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "span", span)

    @override
    def bind(self, limits: Limits) -> Middleware:
        """Return the middleware that keeps it."""
        return _Throttled(self, limits)


def place_in(counts: Counts, now: float, *, count: int, span: float) -> float:
    """Take a place, or return how many seconds from ``now`` there may be one.

    Exact to a part of the span: never more than ``count`` within any span, perhaps a bit less.
    """
    part = span / PARTS
    current = math.floor(now / part)
    for number in [one for one in counts if one < current - PARTS]:
        del counts[number]
    total = sum(counts.values())
    if total < count:
        counts[current] = counts.get(current, 0) + 1
        return 0.0
    for number in sorted(counts):
        total -= counts[number]
        if total < count:
            return max((number + PARTS + 1) * part - now, 0.001)
    return span


class _Throttled:
    """A throttle of one listener in one process; it remembers what it wrote last."""

    def __init__(self, throttle: Throttle, limits: Limits) -> None:
        self._throttle = throttle
        self._limits = limits
        self._turn = asyncio.Lock()
        self._known: tuple[Counts, int] | None = None

    async def __call__(self, context: Context, call_next: CallNext) -> None:
        """Run the rest of the chain where there is a place."""
        by = self._throttle.by
        key = "" if by is None else key_by(by, context)
        try:
            async with self._turn:  # this process's runs needn't race with one another
                wait = await self._take(key)
        except DriverError:
            wait = UNREACHABLE
        if wait:
            raise Postpone(wait, pause=by is None)
        await call_next(context)

    async def _take(self, key: str) -> float:
        """Take a place and return 0, or return how many seconds to wait for one."""
        one = self._throttle
        by = one.by if isinstance(one.by, str) else ""
        place = self._limits.place("throttle", f"{one.rate} {by}", key)
        for _ in range(TRIES):
            counts, revision = self._known or await self._read(place)
            wait = place_in(
                counts, self._limits.clock.now().timestamp(), count=one.count, span=one.span
            )
            if wait:
                return wait
            self._known = None
            body = json.dumps(sorted(counts.items()), separators=(",", ":")).encode()
            keep = one.span * (1 + 2 / PARTS)
            written = await self._limits.log.write(place, body, over=revision, keep=keep)
            if written is not None:
                # Of many keys none is remembered: each would have to be forgotten some day.
                self._known = (counts, written) if one.by is None else None
                return 0.0
        return one.span / PARTS

    async def _read(self, place: str) -> tuple[Counts, int]:
        record = await self._limits.log.read(place)
        if record is None:
            return {}, 0
        try:
            return {int(number): int(count) for number, count in json.loads(record.body)}, (
                record.revision
            )
        except (TypeError, ValueError):  # somebody else has put something there
            return {}, record.revision
