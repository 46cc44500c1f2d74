"""What observers are told of an emit."""

from eventbus.drivers.receipt import Receipt
from eventbus.envelope import Envelope
from eventbus.routing import Publishing
from eventbus.telemetry.signals import EmitFailed, Emitted, is_watched

__all__ = ("Telling",)


class Telling:
    """Tells the observers of one service."""

    def __init__(self, publishing: Publishing) -> None:
        self._observe = publishing.observe
        self.now = publishing.clock.monotonic
        """The time by which it is said how long an emit took."""

    def stored(self, driver: str, envelope: Envelope, receipt: Receipt, started: float) -> None:
        """Tell that an event is stored; ``driver`` is whom the emit went to."""
        if not is_watched(self._observe, Emitted):
            return
        self._observe(
            Emitted(  # by position, which is quicker
                envelope.name,
                envelope.id,
                receipt.driver if receipt.pending else driver,
                envelope.correlation_id,
                self.now() - started,
                len(envelope.body),
                receipt.duplicate,
                envelope.key,
                envelope.causation_id,
                receipt.trace,
                envelope.tags,
                envelope.due,
            )
        )

    def failed(
        self, driver: str, envelope: Envelope, error: BaseException, started: float
    ) -> None:
        """Tell that an emit raised; one that was cancelled hasn't failed."""
        if not isinstance(error, Exception):
            return
        self._observe(
            EmitFailed(
                name=envelope.name,
                id=envelope.id,
                driver=driver,
                correlation_id=envelope.correlation_id,
                duration=self.now() - started,
                error=error,
                trace=envelope.trace.get("traceparent", ""),
            )
        )
