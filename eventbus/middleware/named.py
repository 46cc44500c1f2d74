"""Middleware as a string, as it may stand in a list of names: ``"throttle:10,1"``."""

from collections.abc import Callable, Mapping

from eventbus.errors import DeclarationError, did_you_mean
from eventbus.middleware.limit import Limit
from eventbus.middleware.overlap import WithoutOverlapping
from eventbus.middleware.throttle import Throttle
from eventbus.middleware.unique import Unique

__all__ = ("middleware_named",)


def middleware_named(text: str) -> Limit:
    """Return what a string names.

    ``throttle:10,1`` is 10 a minute (the second number is minutes, 1 where it isn't given),
    ``throttle:10/1s`` a rate; ``without_overlapping:user_id`` and ``unique:1h,user_id`` name a
    field, which may be left out.

    Raises:
        DeclarationError: It names none, or its values make no sense.
    """
    name, _, values = text.partition(":")
    given = [one.strip() for one in values.split(",")] if values else []
    make = _KINDS.get(name)
    if make is None:
        hint = did_you_mean(name, _KINDS)
        raise DeclarationError(
            f"no middleware is called {name!r} (known: {', '.join(_KINDS)}){hint}"
        )
    try:
        return make(*given)
    except TypeError as exc:
        raise DeclarationError(f"middleware {text!r}: {name} takes other values") from exc


def _throttle(count: str, minutes: str = "1") -> Limit:
    if "/" in count:
        return Throttle(count)
    if not minutes.isascii() or not minutes.isdecimal():
        raise DeclarationError(f"'throttle:{count},{minutes}': {minutes!r} isn't a number")
    return Throttle(f"{count}/{minutes}m")


def _unique(for_: str, by: str | None = None) -> Limit:
    return Unique(float(for_) if for_.isdecimal() else for_, by)


_KINDS: Mapping[str, Callable[..., Limit]] = {
    "throttle": _throttle,
    "unique": _unique,
    "without_overlapping": WithoutOverlapping,
}
