"""`Witness`: writes down what a service does: its emits, its listeners' runs, its signals."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from eventbus import Context, EventService, Receipt
from eventbus.drivers.base import Connected, Disconnected
from eventbus.errors import EmitUnknown
from eventbus.telemetry.signals import Happened, Returned, Settled, Stuck
from tests.faults.harness.history import Entry, Ledger, What
from tests.faults.harness.step import StepTaken, act

__all__ = ("Listener", "Witness")

Listener: TypeAlias = Callable[[StepTaken, Context], Awaitable[None]]


class Witness:
    """What happens in one process, told to a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def note(self, what: What, detail: str = "") -> None:
        """Write something down that belongs to no event."""
        self._ledger.write(Entry(what, detail=detail))

    def listener(self, name: str, *, does: str = "") -> Listener:
        """Return a listener that does what its events ask for, or what is given."""

        async def listen(event: StepTaken, context: Context) -> None:
            attempt = context.attempt
            if does:
                event = event.model_copy(update={"does": does})
            self._ledger.write(Entry(What.BEGUN, event.mark, name, attempt))
            try:
                await act(event, attempt)
            except BaseException as exc:
                self._ledger.write(
                    Entry(What.BROKEN, event.mark, name, attempt, type(exc).__name__)
                )
                raise
            self._ledger.write(Entry(What.EFFECT, event.mark, name, attempt))

        return listen

    def observe(self, happened: Happened) -> None:
        """Take a signal of the service."""
        match happened:
            case Settled():
                entry = Entry(
                    What.SETTLED,
                    listener=happened.listener,
                    attempt=happened.attempt,
                    detail=happened.outcome,
                    sequence=happened.sequence,
                )
            case Stuck():
                entry = Entry(What.STUCK, listener=happened.listener, detail=str(happened.error))
            case Returned():
                entry = Entry(What.RETURNED, listener=happened.listener)
            case Disconnected():
                entry = Entry(What.LOST, detail=happened.problem)
            case Connected():
                entry = Entry(What.CONNECTED, detail=happened.server)
            case _:
                return
        self._ledger.write(entry)

    async def emit(self, events: EventService, step: StepTaken) -> Receipt:
        """Emit a step, and write down what came of it.

        Raises:
            Exception: What the emit raised.
        """
        self._ledger.write(Entry(What.INVOKED, step.mark))
        try:
            receipt = await events.emit(step)
        except (EmitUnknown, asyncio.CancelledError) as exc:
            self._ledger.write(Entry(What.UNKNOWN, step.mark, detail=str(exc)))
            raise
        except Exception as exc:
            self._ledger.write(Entry(What.REFUSED, step.mark, detail=repr(exc)))
            raise
        detail = "duplicate" if receipt.duplicate else ""
        self._ledger.write(Entry(What.STORED, step.mark, detail=detail, sequence=receipt.sequence))
        return receipt
