"""Parking: long retries wait beside the stream, and what can be handled is handled meanwhile."""

import asyncio
import time
from collections import Counter

import pytest

from eventbus import Context, Event, EventService, Retry
from eventbus.delivery import Outcome
from eventbus.embedded import NatsServer
from eventbus.settings import Settings
from eventbus.telemetry.signals import Happened, Settled
from tests.waiting import eventually

pytestmark = [pytest.mark.nats, pytest.mark.slow]

PARKED = 10_000
GOOD = 1_000
ROUNDS = 2


class MailDue(Event, name="mail.due"):
    number: int
    is_good: bool = True
    at: float = 0.0


class Mail:
    """A listener that can't handle some events yet, and how late it handles the others."""

    def __init__(self, server: NatsServer, **settings: object) -> None:
        given = {"nats_url": server.url, "grace": 2, **settings}
        self.events = EventService("mail", settings=Settings(**given))  # type: ignore[arg-type]
        self.late: list[float] = []
        self.outcomes: Counter[Outcome] = Counter()
        self.events.observe(self._observe)

    async def send(self, event: MailDue) -> None:
        if not event.is_good:
            raise ConnectionError("refused")
        self.late.append(time.monotonic() - event.at)

    def _observe(self, happened: Happened) -> None:
        if isinstance(happened, Settled):
            self.outcomes[happened.outcome] += 1

    async def emit(self, count: int, *, is_good: bool) -> None:
        for first in range(0, count, 200):
            numbers = range(first, min(count, first + 200))
            at = time.monotonic()
            await self.events.emit_many(
                [MailDue(number=one, is_good=is_good, at=at) for one in numbers]
            )

    async def measure(self) -> tuple[float, float]:
        """Return the least of a few rounds: the time of some good events, and a percentile 99."""
        rounds = [await self._measure() for _ in range(ROUNDS)]
        return min(total for total, _ in rounds), min(late for _, late in rounds)

    async def _measure(self) -> tuple[float, float]:
        self.late.clear()
        began = time.monotonic()
        await self.emit(GOOD, is_good=True)

        async def handled() -> bool:
            return len(self.late) == GOOD

        await eventually(handled, 20)
        return time.monotonic() - began, sorted(self.late)[GOOD * 99 // 100]


async def test_thousands_of_parked_events_do_not_slow_good_ones(nats_server: NatsServer) -> None:
    mail = Mail(nats_server, park_after=1)
    # More than the 1000 places for what is delivered and not settled, ten times.
    retry = Retry(attempts=3, delays=(3600,))
    mail.events.subscribe(MailDue, mail.send, retry=retry, concurrency=64)

    async def parked() -> bool:
        return mail.outcomes[Outcome.PARK] == PARKED

    async with mail.events:
        await mail.measure()
        alone = await mail.measure()
        await mail.emit(PARKED, is_good=False)
        await eventually(parked, 45)
        beside = await mail.measure()

    assert mail.outcomes == {Outcome.OK: 3 * ROUNDS * GOOD, Outcome.PARK: PARKED}
    # Where the parked ones held places, the good ones would wait for an hour.
    assert beside[0] <= 10 * alone[0] + 3, f"total {alone[0]:.2f} s, then {beside[0]:.2f} s"
    assert beside[1] <= 10 * alone[1] + 3, f"p99 {alone[1]:.3f} s, then {beside[1]:.3f} s"


async def test_a_parked_retry_comes_back_to_its_listener_alone_as_the_next_attempt(
    nats_server: NatsServer,
) -> None:
    sent: list[tuple[int, int]] = []
    noted: list[tuple[int, int]] = []
    mail = Mail(nats_server, park_after=0.1)

    async def send(event: MailDue, context: Context) -> None:
        sent.append((event.number, context.attempt))
        if context.attempt < 3:
            raise ConnectionError("refused")

    async def note(event: MailDue, context: Context) -> None:
        noted.append((event.number, context.attempt))

    mail.events.subscribe(MailDue, send, retry=Retry(attempts=3, delays=(0.2, 0.4)))
    mail.events.subscribe(MailDue, note)

    async def handled() -> bool:
        return mail.outcomes[Outcome.OK] == 40

    async with mail.events:
        await mail.emit(20, is_good=True)
        await eventually(handled, 20)
        await asyncio.sleep(1)  # what came too often would come by then

    assert sorted(sent) == [(number, attempt) for number in range(20) for attempt in (1, 2, 3)]
    assert sorted(noted) == [(number, 1) for number in range(20)]
    assert mail.outcomes == {Outcome.PARK: 40, Outcome.OK: 40}


async def test_where_too_much_waits_for_later_retries_wait_in_place(
    nats_server: NatsServer,
) -> None:
    mail = Mail(nats_server, park_after=0.1, later_max_bytes=1024 * 1024)
    mail.events.subscribe(
        MailDue, mail.send, retry=Retry(attempts=3, delays=(3600,)), concurrency=64
    )

    async def refused() -> bool:
        return mail.outcomes[Outcome.RETRY] > 0

    async with mail.events:
        await asyncio.sleep(0.5)  # the janitor's first look
        await mail.emit(3000, is_good=False)
        await eventually(refused, 20)

    assert mail.outcomes[Outcome.PARK] > 0
    assert set(mail.outcomes) == {Outcome.PARK, Outcome.RETRY}
