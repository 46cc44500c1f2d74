"""`Stock`: what there is of each product, and what is set aside for which order."""

from dataclasses import dataclass, field

__all__ = ("Reservation", "Stock")


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is set aside for an order; ``quantity`` 0 where there wasn't enough."""

    product_id: str
    quantity: int
    left: int
    """What nobody had reserved right after."""


@dataclass(slots=True)
class Stock:
    """The goods, in the memory of this process; every product begins with the same quantity."""

    opening: int
    _left: dict[str, int] = field(default_factory=dict[str, int])
    _reservations: dict[str, Reservation] = field(default_factory=dict[str, Reservation])

    def reserve(self, order_id: str, product_id: str, quantity: int) -> Reservation:
        """Set goods aside for an order; asked again for the same one, repeat the answer."""
        made = self._reservations.get(order_id)
        if made is None:
            left = self._left.get(product_id, self.opening)
            taken = quantity if quantity <= left else 0
            self._left[product_id] = left - taken
            made = Reservation(product_id, taken, left - taken)
            self._reservations[order_id] = made
        return made

    def release(self, order_id: str) -> Reservation | None:
        """Give back what an order holds; return it, or None where it holds nothing.

        Asked again for the same one, repeat the answer.
        """
        made = self._reservations.get(order_id)
        if made is None or not made.quantity:
            return None
        released = f"{order_id} released"
        if released not in self._reservations:
            self._left[made.product_id] += made.quantity
            left = self._left[made.product_id]
            self._reservations[released] = Reservation(made.product_id, made.quantity, left)
        return self._reservations[released]
