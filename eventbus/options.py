"""Checks of the options that say what stands around a listener and when its events wait."""

from eventbus.errors import DeclarationError
from eventbus.middleware.breaker import Breaker
from eventbus.middleware.limit import Layer, Limit
from eventbus.middleware.named import middleware_named
from eventbus.subscription import EventT, ListenerOptions

__all__ = ("around",)


def around(
    listener: str, options: ListenerOptions[EventT]
) -> tuple[tuple[Layer, ...], Breaker | None]:
    """Return what stands around a listener, and its breaker.

    Raises:
        DeclarationError: Something in ``middleware`` or ``breaker`` is none, or there are two
            breakers.
    """
    given = options.get("middleware", ())
    if isinstance(given, str):  # a sequence too
        raise DeclarationError(
            f"listener '{listener}': middleware={given!r} must be a list; write [{given!r}]"
        )
    named = [middleware_named(one) if isinstance(one, str) else one for one in given]
    breakers = [one for one in named if isinstance(one, Breaker)]
    breaker = options.get("breaker")
    if breaker is not None:
        breakers.append(_breaker(listener, breaker))
    if len(breakers) > 1:
        raise DeclarationError(f"listener '{listener}' has {len(breakers)} breakers; keep one")
    layers = tuple(one for one in named if not isinstance(one, Breaker))
    for one in layers:
        if not isinstance(one, Limit) and (isinstance(one, type) or not callable(one)):
            raise DeclarationError(f"listener '{listener}': {one!r} isn't a middleware")
    return layers, breakers[0] if breakers else None


def _breaker(listener: str, breaker: Breaker) -> Breaker:
    if isinstance(breaker, Breaker):
        return breaker
    raise DeclarationError(
        f"listener '{listener}': breaker={breaker!r} isn't a Breaker; write breaker=Breaker()"
    )
