"""A delivery and a driver that record what is asked of them, for tests of decisions.

Fakes of our own seam, written against its protocols; what a real server does is tested elsewhere.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

import pytest

from eventbus.attempts import History
from eventbus.delivery import Arrived
from eventbus.drivers.base import (
    HEADROOM,
    Consumer,
    ConsumerSpec,
    Deliver,
    Features,
    Notify,
    Receipt,
    Status,
)
from eventbus.drivers.schedules import Schedules
from eventbus.envelope import Message
from eventbus.errors import UnsupportedError

if TYPE_CHECKING:
    from tests.unit.bench import Bench

START = datetime(2026, 3, 1, 10, tzinfo=UTC)


class StillClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        """Return the time."""
        return self.time

    def monotonic(self) -> float:
        """Return the seconds since the start."""
        return (self.time - START).total_seconds()

    async def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self.move(seconds)

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.time += timedelta(seconds=seconds)


class FakeDelivery:
    """A delivery that writes down how it is settled; only the first settlement counts."""

    def __init__(
        self,
        message: Message,
        *,
        deliveries: int = 1,
        sequence: int = 1,
        stored_at: datetime = START,
        journal: list[str] | None = None,
        fails: Mapping[str, Exception] | None = None,
    ) -> None:
        self.message = message
        self.stream = "EVENTS"
        self.sequence = sequence
        self.stored_at = stored_at
        self.deliveries = deliveries
        self.journal = [] if journal is None else journal
        self.fails = dict(fails or {})
        self.settled = False
        self.lost = False

    async def ack(self) -> None:
        """Settle it as handled."""
        self._settle("ack", "ack")

    async def nak(self, delay: float = 0.0) -> None:
        """Give it back."""
        self._settle("nak", f"nak {delay:g}")

    async def term(self, reason: str) -> None:
        """Settle it for good."""
        self._settle("term", f"term: {reason}")

    async def in_progress(self) -> None:
        """Prolong it."""
        self.journal.append("in progress")

    def _settle(self, how: str, entry: str) -> None:
        if self.settled:
            return
        self.settled = True
        self.journal.append(entry)
        if how in self.fails:
            raise self.fails[how]


class ReadableDelivery(FakeDelivery):
    """One that hands out its bytes, and whose acknowledgement is confirmed at once."""

    @property
    def arrived(self) -> Arrived:
        """The message as it came."""
        one = self.message
        lines = [f"{name}: {value}\r\n" for name, value in one.headers.items()]
        head = f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()
        return Arrived(one.subject.encode(), head, one.body)

    def ack_soon(self, done: Callable[[bool], None]) -> None:
        """Settle it as handled, where that doesn't fail."""
        is_known = "ack" not in self.fails
        if is_known:
            self._settle("ack", "ack")
        done(is_known)


class Afterwards:
    """Counts what isn't confirmed, and keeps what has to go on."""

    def __init__(self) -> None:
        self.open = 0
        self.left: list[Coroutine[object, object, None]] = []

    def began(self) -> None:
        """Count one."""
        self.open += 1

    def ended(self) -> None:
        """Count it no more."""
        self.open -= 1

    def go_on(self, coroutine: Coroutine[object, object, None]) -> None:
        """Keep it for a test to await."""
        self.left.append(coroutine)


class DictLog:
    """An attempt log in memory."""

    def __init__(self) -> None:
        self.histories: dict[str, History] = {}
        self.writes: list[History] = []
        self.fails: Exception | None = None

    async def read(self, place: str) -> History:
        """Return what is recorded."""
        self._check()
        return self.histories.get(place, History())

    async def write(self, place: str, history: History) -> None:
        """Record it."""
        self._check()
        self.histories[place] = history
        self.writes.append(history)

    async def forget(self, place: str) -> None:
        """Drop the record."""
        self.histories.pop(place, None)

    def _check(self) -> None:
        if self.fails is not None:
            raise self.fails


class RecordingDriver:
    """A driver that keeps what is published, and raises or returns what a test tells it to."""

    def __init__(self) -> None:
        self.name = "recording"
        self.features = Features(durable=True, delay=True, schedules=True)
        self.attempts = DictLog()
        self.room = None
        self.journal: list[str] = []
        """What was asked of the driver and of the deliveries made with it, in order."""
        self.published: list[Message] = []
        self.headrooms: list[int] = []
        self.scheduled: list[tuple[Message, datetime, str]] = []
        self.raises: list[Exception | None] = []
        """What the next calls raise, in order; None for a call that goes well."""
        self.receipts: list[Receipt] = []
        """What the next publishes return, in order; a fresh receipt where there is none."""
        self.kept: Message | None = None
        """What `stored` returns."""

    def watch(self, notify: Notify) -> None:
        """Take note of an observer."""

    @property
    def schedules(self) -> Schedules:
        """Refuse: these tests of decisions have nothing wait."""
        raise UnsupportedError(driver=self.name, feature="schedules", remedy="use memory")

    async def __aenter__(self) -> Self:
        """Connect."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close."""

    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Create durables."""

    async def report_orphans(self, declared: Sequence[ConsumerSpec]) -> None:
        """Know nothing of durables."""

    async def publish(self, message: Message, *, headroom: int = HEADROOM) -> Receipt:
        """Keep a message."""
        self._raise("publish")
        self.journal.append(f"publish {message.subject}")
        self.published.append(message)
        self.headrooms.append(headroom)
        if self.receipts:
            return self.receipts.pop(0)
        return Receipt(message.id or "", "EVENTS", len(self.published), driver=self.name)

    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Keep a message for later."""
        self._raise("schedule")
        self.journal.append(f"schedule {holder}")
        self.scheduled.append((message, at, holder))
        return Receipt(message.id or "", "EVENTS_LATER", len(self.scheduled), driver=self.name)

    async def hold(self, message: Message) -> Receipt:
        """Keep a message until there is room."""
        self._raise("hold")
        self.journal.append(f"hold {message.subject}")
        self.published.append(message)
        return Receipt(message.id or "", "EVENTS_LATER", len(self.published), driver=self.name)

    async def measure(self, durable: str) -> None:
        """Know nothing of durables."""

    async def stored(self, receipt: Receipt) -> Message | None:
        """Return what a test says is stored."""
        return self.kept

    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Refuse: these tests hand deliveries over themselves."""
        raise NotImplementedError

    def status(self) -> Status:
        """Return that all is well."""
        return Status()

    def _raise(self, what: str) -> None:
        error = self.raises.pop(0) if self.raises else None
        if error is not None:
            self.journal.append(f"{what} failed")
            raise error


@pytest.fixture
def clock() -> StillClock:
    """Give a clock that stands still."""
    return StillClock()


@pytest.fixture
def driver() -> RecordingDriver:
    """Give a driver that records."""
    return RecordingDriver()


@pytest.fixture(params=[False, True], ids=["whole", "short"])
def bench(driver: RecordingDriver, clock: StillClock, request: pytest.FixtureRequest) -> "Bench":
    """Give a dispatcher to try deliveries with; an observer that always raises watches too."""
    from tests.unit.bench import Bench  # it stands on the fakes of this module

    return Bench(driver, clock, is_short=request.param)
