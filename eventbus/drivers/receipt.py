"""What an emit returns: `Receipt`, and the place of a delayed event, `Scheduled`."""

from dataclasses import dataclass
from datetime import datetime

from eventbus.record import quick

__all__ = ("Receipt", "Scheduled", "traced")


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A delayed event that waits: what `EventService.cancel` and `reschedule` take."""

    id: str
    """The event's id."""
    service: str
    """Who emitted it."""
    at: datetime
    """When it is handed to its listeners, in UTC."""
    driver: str = ""
    """The driver that keeps it until then."""


@quick
@dataclass(frozen=True, slots=True)
class Receipt:
    """The server's word that an event is stored (P1)."""

    id: str
    stream: str
    sequence: int
    duplicate: bool = False
    """It was stored before under this id; nothing was stored now."""
    driver: str = ""
    trace: str = ""
    """The W3C ``traceparent`` that it was sent with; empty without a trace."""
    scheduled: Scheduled | None = None
    """Of a delayed event: where it waits. None where it doesn't, any more or at all."""
    pending: bool = False
    """It waits in the caller's transaction, as row ``sequence`` of table ``stream``: the event goes
    when that commits, and never if it rolls back. A delayed one can be cancelled by its id then.
    In the run of an ``atomic`` listener it waits for the run's end, in the same way."""


def traced(receipt: Receipt, trace: str) -> Receipt:
    """Return it with the trace it was sent with; quicker than `dataclasses.replace`."""
    return Receipt(
        receipt.id,
        receipt.stream,
        receipt.sequence,
        receipt.duplicate,
        receipt.driver,
        trace,
        receipt.scheduled,
        receipt.pending,
    )
