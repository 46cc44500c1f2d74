"""The event that every fault case emits: it carries its own mark, and what its listener does."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping

from eventbus import Event

__all__ = ("Abort", "StepTaken", "act", "mark_of")

MARK = "{thread}:{number}"


class StepTaken(Event, name="step.taken", key="thread"):
    """One step of a thread of steps; thread and number tell it from every other one."""

    thread: str
    number: int
    seconds: float = 0.0
    """How long its listener works."""
    does: str = "nothing"
    """What its listener does then, see `act`."""
    times: int = 1_000_000
    """On how many attempts it does that; on later ones it does nothing."""
    filler: str = ""

    @property
    def mark(self) -> str:
        """What the history knows it by."""
        return mark_of(self.thread, self.number)


class Abort(BaseException):
    """Neither an `Exception` nor a cancellation."""


def mark_of(thread: str, number: int) -> str:
    """Return the mark of a step."""
    return MARK.format(thread=thread, number=number)


async def act(event: StepTaken, attempt: int) -> None:
    """Do what the event asks for, as long as it asks for it."""
    if event.seconds:
        await asyncio.sleep(event.seconds)
    if attempt > event.times:
        return
    if event.does == "hang":
        await asyncio.Event().wait()
    _DEEDS[event.does]()


def _raise() -> None:
    raise ValueError("this step fails")


def _memory() -> None:
    bytearray(1 << 60)


def _recurse() -> None:
    _recurse()


def _abort() -> None:
    raise Abort


def _leave() -> None:
    raise SystemExit(3)


_DEEDS: Mapping[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "raise": _raise,
    "memory": _memory,
    "recursion": _recurse,
    "abort": _abort,
    "leave": _leave,
    "exit": lambda: os._exit(9),
    "block": lambda: time.sleep(2),
}
