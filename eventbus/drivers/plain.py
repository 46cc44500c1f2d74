"""`PlainDriver`: a driver that can nothing yet; the base of your own."""

from collections.abc import Sequence
from datetime import datetime
from typing import Self

from eventbus.attempts import AttemptLog, History
from eventbus.clock import SystemClock
from eventbus.drivers.asking import Asking, LocalAsking
from eventbus.drivers.base import (
    HEADROOM,
    Consumer,
    ConsumerSpec,
    Deliver,
    Features,
    InOrder,
    Receipt,
    Status,
)
from eventbus.drivers.room import DurableState, Room
from eventbus.drivers.schedules import Schedules
from eventbus.drivers.watched import Watched
from eventbus.envelope import Message
from eventbus.errors import UnsupportedError
from eventbus.limits import LimitLog, LocalLimits
from eventbus.parked import ParkedLog

__all__ = ("LocalAttempts", "PlainDriver")


class LocalAttempts:
    """An `AttemptLog` for the one process that there is."""

    def __init__(self) -> None:
        self._histories: dict[str, History] = {}

    async def read(self, place: str) -> History:
        """Return what is recorded; an empty history where nothing is."""
        return self._histories.get(place, History())

    async def write(self, place: str, history: History) -> None:
        """Record it."""
        self._histories[place] = history

    async def forget(self, place: str) -> None:
        """Drop the record."""
        self._histories.pop(place, None)


class PlainDriver(Watched):
    """Refuses everything that a driver may lack, and is ready for nothing else.

    A driver of your own inherits it, says its `features`, and overrides what they stand for: at
    least `publish`, `consume` and, where it `stores`, `provision`, `stored` and `measure`.
    `docs/guide/drivers.md` has a whole one.
    """

    def __init__(self, name: str, features: Features) -> None:
        super().__init__()
        self._name = name
        self._features = features
        self._attempts = LocalAttempts()
        self._limits = LocalLimits(SystemClock())
        self._asking = LocalAsking()

    @property
    def name(self) -> str:
        """How settings, receipts and metrics call it."""
        return self._name

    @property
    def features(self) -> Features:
        """What it can do."""
        return self._features

    @property
    def attempts(self) -> AttemptLog:
        """Where it keeps the failed attempts of deliveries: in this process."""
        return self._attempts

    @property
    def limits(self) -> LimitLog:
        """Where limits are kept: in this process."""
        return self._limits

    @property
    def parked(self) -> ParkedLog:
        """Raise UnsupportedError: it has no ordered listeners."""
        raise self.unsupported("order by key")

    @property
    def schedules(self) -> Schedules:
        """Raise UnsupportedError: nothing waits here."""
        raise self.unsupported("delays")

    @property
    def asking(self) -> Asking:
        """Where questions are asked and answered: in this process, through this driver."""
        return self._asking

    @property
    def room(self) -> Room | None:
        """None: nobody has to make room."""
        return None

    async def __aenter__(self) -> Self:
        """Be ready at once."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Have nothing to close."""

    async def provision(self, consumers: Sequence[ConsumerSpec]) -> None:
        """Have no durables to create."""

    async def report_orphans(self, declared: Sequence[ConsumerSpec]) -> None:
        """Have no durables to tell of."""

    async def publish(self, message: Message, *, headroom: int = HEADROOM) -> Receipt:
        """Raise UnsupportedError: override it."""
        raise self.unsupported("events")

    async def schedule(self, message: Message, *, at: datetime, holder: str) -> Receipt:
        """Raise UnsupportedError: nothing waits here."""
        raise self.unsupported("delays")

    async def hold(self, message: Message) -> Receipt:
        """Raise UnsupportedError: nothing waits here."""
        raise self.unsupported("delays")

    async def stored(self, receipt: Receipt) -> Message | None:
        """Return None: nothing is stored."""
        return None

    async def consume(self, consumer: ConsumerSpec, deliver: Deliver) -> Consumer:
        """Raise UnsupportedError: override it."""
        raise self.unsupported("listeners")

    async def consume_in_order(self, consumer: ConsumerSpec, taker: InOrder) -> Consumer:
        """Raise UnsupportedError: it keeps no order by key."""
        raise self.unsupported("order by key")

    async def remove(self, consumer: ConsumerSpec) -> None:
        """Have no durable to delete."""

    async def measure(self, durable: str) -> DurableState | None:
        """Return None: there are no durables."""
        return None

    def status(self) -> Status:
        """Return that it works."""
        return Status()

    def unsupported(self, feature: str) -> UnsupportedError:
        """Return the error for a feature that it lacks."""
        return UnsupportedError(
            driver=self.name,
            feature=feature,
            remedy="use the driver 'memory' or 'jetstream' for it",
        )
