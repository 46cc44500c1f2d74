"""The seam to a driver that takes many messages, each before the one before is stored."""

from collections.abc import Awaitable, Generator
from typing import Protocol

from typing_extensions import TypeIs

from eventbus.drivers.base import Driver
from eventbus.drivers.receipt import Receipt
from eventbus.envelope import Message

__all__ = ("Answer", "Pipe", "Pipelined", "abandon", "is_pipelined")


class Answer(Protocol):
    """The answer to a message that was sent: a future, which only its pipe can read.

    Awaiting it raises where none came, or where it is a refusal; `Pipe.end` says what that
    means. Cancelling it leaves open whether the message is stored.
    """

    def done(self) -> bool:
        """Return whether it came, or never will."""
        ...

    def cancel(self) -> bool:
        """Wait for it no more; False where it is done."""
        ...

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        ...

    def exception(self) -> BaseException | None:
        """Return why it never came."""
        ...

    def __await__(self) -> Generator[object, None, object]:
        """Wait for it."""
        ...


class Pipe:
    """A driver's `publish` taken apart, so that one caller has many on their way.

    A class and no protocol: compiled, what is called for every event is found at once.
    """

    def begin(self, message: Message) -> Answer | None:
        """Send a message now, after all that was sent before; None where it has to wait.

        What is begun has to be ended or abandoned.

        Raises:
            PayloadTooLargeError, HeaderError, SubjectError: It can't be carried.
        """
        raise NotImplementedError

    def receipt_of(self, message: Message, answer: Answer) -> Receipt | None:
        """Return the receipt in an answer that came, where it says no more than that.

        None where `end` has to be asked.
        """
        raise NotImplementedError

    def end(self, message: Message, answer: Answer, *, waited: float) -> Awaitable[Receipt]:
        """Return once the server says that it is stored; tries again and raises as `publish`.

        ``waited`` are the seconds since it was begun; they count for the emit timeout.
        """
        raise NotImplementedError


class Pipelined(Driver, Protocol):
    """A driver that has a pipe."""

    @property
    def pipe(self) -> Pipe:
        """What takes its messages, the same for as long as it is open."""
        ...


def abandon(answer: Answer) -> None:
    """Wait no more for an answer; whether the message is stored stays unknown."""
    if not answer.cancel() and not answer.cancelled():
        answer.exception()  # which nobody else would look at


def is_pipelined(driver: Driver) -> TypeIs[Pipelined]:
    """Tell whether a driver takes many messages at once."""
    return hasattr(driver, "pipe")
