"""Fakes for every service at once, as functions."""

from collections.abc import Iterable

from eventbus.event import Event
from eventbus.faking import Fake, Recorded, active_fakes

__all__ = ("Fake", "Recorded", "fake", "is_faking", "restore")


def fake(
    *, only: Iterable[type[Event] | str] = (), except_: Iterable[type[Event] | str] = ()
) -> Fake:
    """Record what any service emits instead of publishing it, from now on, in this task.

    ``with fake() as recorded:`` ends it with the block, else `restore` does.
    """
    return Fake(only=only, except_=except_)


def restore() -> None:
    """End the fake that was made last in this task; does nothing where there is none."""
    for one in active_fakes()[-1:]:
        one.restore()


def is_faking() -> bool:
    """Tell whether a fake holds in this task."""
    return bool(active_fakes())
