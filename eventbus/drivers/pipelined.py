"""The seam to a driver that takes many messages, each before the one before is stored."""

from typing import Protocol

from typing_extensions import TypeIs

from eventbus.drivers.base import HEADROOM, Driver
from eventbus.drivers.receipt import Receipt
from eventbus.envelope import Message

__all__ = ("Pipelined", "Publication", "is_pipelined")


class Publication(Protocol):
    """A message on its way."""

    @property
    def is_answered(self) -> bool:
        """Whether the server has answered, or won't."""
        ...

    async def answered(self) -> None:
        """Wait until it is; never raises."""
        ...

    def abandon(self) -> None:
        """Don't wait for it any more; whether it is stored stays unknown."""
        ...


class Pipelined(Driver, Protocol):
    """A driver whose `publish` may be taken apart, so that one caller has many on their way."""

    def begin(self, message: Message, *, headroom: int = HEADROOM) -> Publication | None:
        """Send a message now, after all that was sent before; None where it has to wait.

        What is begun has to be ended or abandoned.

        Raises:
            PayloadTooLargeError, HeaderError, SubjectError: It can't be carried.
        """
        ...

    def receipt_of(self, publication: Publication) -> Receipt | None:
        """Return the receipt of one that is answered, where the answer says no more than that.

        None where `end` has to be asked.
        """
        ...

    async def end(self, publication: Publication) -> Receipt:
        """Return once the server says that it is stored; tries again and raises as `publish`."""
        ...


def is_pipelined(driver: Driver) -> TypeIs[Pipelined]:
    """Tell whether a driver takes many messages at once."""
    return hasattr(driver, "begin") and hasattr(driver, "receipt_of")
