"""What an emit makes of the server's word that its id is known (ADR 0014)."""

from dataclasses import replace

from eventbus import headers as h
from eventbus.drivers.base import Driver
from eventbus.drivers.receipt import Receipt
from eventbus.envelope import Envelope
from eventbus.errors import IdConflictError

__all__ = ("accepted",)


async def accepted(
    driver: Driver, envelope: Envelope, receipt: Receipt, *, fresh: bool
) -> Receipt:
    """Return the receipt of an event that was stored before under its id.

    ``fresh`` says that the id was made for this emit.

    Raises:
        IdConflictError: It is another event that was.
    """
    if envelope.due is None:
        await _check(driver, envelope, receipt, fresh=fresh)
        return receipt
    # With a new id it is this one, to whose first try there was no answer.
    return replace(receipt, duplicate=False) if fresh else receipt


async def _check(driver: Driver, envelope: Envelope, receipt: Receipt, *, fresh: bool) -> None:
    stored = await driver.stored(receipt)
    if stored is None and not fresh:
        return
    if stored is None:
        raise IdConflictError(name=envelope.name, id=envelope.id, stored="an event now gone")
    kind = h.lowered(stored.headers).get(h.TYPE, "?")
    if fresh or kind != envelope.name or stored.body != envelope.body:
        place = f"'{kind}' at {receipt.stream}:{receipt.sequence}"
        raise IdConflictError(name=envelope.name, id=envelope.id, stored=place)
