"""`Monitored`: counts what is handed over, and how long that takes."""

from dataclasses import dataclass

from typing_extensions import override

from eventbus.clock import Clock, SystemClock
from eventbus.drivers.base import Driver, Receipt
from eventbus.drivers.wrappers.wrapper import Send, Wrapper

__all__ = ("Monitored", "Monitoring")


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What was counted up to now."""

    dispatches: int = 0
    """Events that were handed over, whatever came of it."""
    successes: int = 0
    failures: int = 0
    seconds: float = 0.0
    """How long those that have ended took in sum."""

    @property
    def average(self) -> float:
        """Seconds that one took on average; 0 where none has ended."""
        ended = self.successes + self.failures
        return self.seconds / ended if ended else 0.0


class Monitored(Wrapper):
    """Counts in this process, for whoever asks `monitoring`; the metrics are counted beside.

    A cancelled emit is neither a success nor a failure.
    """

    def __init__(self, inner: Driver, *, clock: Clock | None = None) -> None:
        super().__init__(inner)
        self._clock = clock or SystemClock()
        self._counted = Monitoring()

    @property
    def monitoring(self) -> Monitoring:
        """What was counted up to now."""
        return self._counted

    def reset(self) -> None:
        """Count from zero."""
        self._counted = Monitoring()

    @override
    async def send(self, send: Send, subject: str) -> Receipt:
        """Hand an event over and count it."""
        self._count(dispatches=1)
        started = self._clock.monotonic()
        try:
            receipt = await send()
        except Exception:
            self._count(failures=1, seconds=self._clock.monotonic() - started)
            raise
        self._count(successes=1, seconds=self._clock.monotonic() - started)
        return receipt

    def _count(
        self, *, dispatches: int = 0, successes: int = 0, failures: int = 0, seconds: float = 0.0
    ) -> None:
        now = self._counted
        self._counted = Monitoring(
            now.dispatches + dispatches,
            now.successes + successes,
            now.failures + failures,
            now.seconds + seconds,
        )
